//! The network between nodes: every connection runs through here, and each direction between each
//! two of them is shaped apart.
//!
//! Each node is known to everybody under an address of ours, behind which its own listener stands.
//! Who dialled is seen as [`super::dialler`] sees it; whoever is no node is a client.

use super::dialler;
use super::stream::{Shape, carry};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a port is tried that something else still holds.
const BIND_EVERY: Duration = Duration::from_millis(20);

/// The ports of one node.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Under which everybody knows it; ours.
    pub known: u16,
    /// On which it listens.
    pub own: u16,
}

/// The network. It ends when it is dropped.
pub struct Network {
    runtime: Runtime,
    wires: Arc<Wires>,
    /// Whether each node's port is open.
    open: Vec<watch::Sender<bool>>,
}

struct Wires {
    /// Has a directory for each node.
    directory: PathBuf,
    nodes: Vec<&'static str>,
    /// By sender, then by receiver; clients have the number behind the last node's.
    shapes: Vec<Vec<watch::Sender<Shape>>>,
    live: Mutex<BTreeMap<u64, Live>>,
    next: AtomicU64,
    /// How often each end dialled.
    dialled: Vec<AtomicU64>,
}

/// A connection, to be reset.
struct Live {
    dialler: usize,
    node: usize,
    reset: CancellationToken,
}

impl Network {
    /// Starts to listen at every node's known port.
    pub fn start(directory: PathBuf, nodes: &[&'static str], ports: &[Ports]) -> Network {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let ends = nodes.len() + 1;
        let shapes = (0..ends).map(|_| (0..ends).map(|_| watch::Sender::default()).collect());
        let wires = Arc::new(Wires {
            directory,
            nodes: nodes.to_vec(),
            shapes: shapes.collect(),
            live: Mutex::default(),
            next: AtomicU64::new(0),
            dialled: (0..ends).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut open = Vec::new();
        for (node, ports) in ports.iter().copied().enumerate() {
            let (sender, is_open) = watch::channel(true);
            // Bound before anybody is told of it.
            let listener = runtime.block_on(bind(ports.known));
            runtime.spawn(listen(Arc::clone(&wires), node, ports, listener, is_open));
            open.push(sender);
        }
        Network { runtime, wires, open }
    }

    /// The number of all clients together, as an end.
    pub fn clients(&self) -> usize {
        self.wires.nodes.len()
    }

    /// Shapes what `from` sends to `to`.
    pub fn shape(&self, from: usize, to: usize, shape: Shape) {
        self.wires.shapes[from][to].send_replace(shape);
    }

    /// All is well again.
    pub fn heal(&self) {
        for shape in self.wires.shapes.iter().flatten() {
            shape.send_replace(Shape::default());
        }
    }

    /// Resets every connection of a node, those of clients as well; answers how many there were.
    pub fn reset(&self, node: usize) -> usize {
        let live = self.wires.live.lock().expect("no holder of this lock panics");
        let its = live.values().filter(|live| live.node == node || live.dialler == node);
        its.inspect(|live| live.reset.cancel()).count()
    }

    /// How often each node dialled another one; at last, how often clients did.
    pub fn dialled(&self) -> Vec<u64> {
        self.wires.dialled.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Refuses who dials a node, as a kernel does for a process that is gone; or no longer.
    pub fn refuse(&self, node: usize, refuse: bool) {
        self.open[node].send_replace(!refuse);
    }

    /// Where else things that this network's owner starts may run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

async fn bind(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(BIND_EVERY).await,
        }
    }
}

async fn listen(
    wires: Arc<Wires>,
    node: usize,
    ports: Ports,
    first: TcpListener,
    mut is_open: watch::Receiver<bool>,
) {
    let mut listener = Some(first);
    loop {
        let bound = match listener.take() {
            Some(bound) => bound,
            None => bind(ports.known).await,
        };
        loop {
            let closed = async { is_open.wait_for(|open| !*open).await.is_ok() };
            let accepted = tokio::select! {
                true = closed => break,
                accepted = bound.accept() => accepted,
            };
            // A connection that broke while it waited is nobody's trouble.
            let Ok((dialled, from)) = accepted else { continue };
            tokio::spawn(serve(Arc::clone(&wires), node, ports.own, dialled, from));
        }
        drop(bound);
        if is_open.wait_for(|open| *open).await.is_err() {
            return;
        }
    }
}

/// One connection, from when it was dialled to its end.
async fn serve(wires: Arc<Wires>, node: usize, own: u16, dialled: TcpStream, from: SocketAddr) {
    let looked = Arc::clone(&wires);
    let Ok(to) = dialled.local_addr() else { return };
    let look = move || dialler::node_at(from, to, &looked.directory, &looked.nodes);
    let dialler = tokio::task::spawn_blocking(look).await.ok().flatten();
    let dialler = dialler.unwrap_or(wires.nodes.len());
    wires.dialled[dialler].fetch_add(1, Ordering::Relaxed);
    let Ok(reached) = TcpStream::connect((Ipv4Addr::LOCALHOST, own)).await else {
        // Nobody listens there. What was accepted too early is refused late.
        let _gone = dialled.set_zero_linger();
        return;
    };
    let (Ok(()), Ok(())) = (dialled.set_nodelay(true), reached.set_nodelay(true)) else { return };
    let reset = CancellationToken::new();
    let number = wires.next.fetch_add(1, Ordering::Relaxed);
    let live = Live { dialler, node, reset: reset.clone() };
    wires.live.lock().expect("no holder of this lock panics").insert(number, live);
    let there = wires.shapes[dialler][node].subscribe();
    let back = wires.shapes[node][dialler].subscribe();
    carry(dialled, reached, there, back, reset).await;
    wires.live.lock().expect("no holder of this lock panics").remove(&number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::free_port;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    /// A client at one end of a connection through a network, and a node at the other.
    struct Line {
        network: Network,
        ports: Ports,
        client: TcpStream,
        node: TcpStream,
    }

    const PATIENCE: Duration = Duration::from_secs(10);
    const A_WHILE: Duration = Duration::from_millis(200);

    fn line() -> Line {
        let ports = Ports { known: free_port(), own: free_port() };
        let listener = TcpListener::bind(("127.0.0.1", ports.own)).expect("it was free");
        let network = Network::start(PathBuf::from("/nowhere"), &["node1"], &[ports]);
        let client = TcpStream::connect(("127.0.0.1", ports.known)).expect("it listens");
        let (node, _) = listener.accept().expect("it is passed on");
        for stream in [&client, &node] {
            stream.set_read_timeout(Some(PATIENCE)).expect("it is no zero");
        }
        Line { network, ports, client, node }
    }

    fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).expect("it arrives");
        bytes
    }

    #[test]
    fn a_cut_keeps_what_was_sent_and_only_one_way() {
        let Line { network, mut client, mut node, .. } = line();
        let clients = network.clients();
        network.shape(clients, 0, Shape { cut: true, ..Shape::default() });
        client.write_all(b"one").expect("the kernel takes it");
        client.write_all(b"two").expect("the kernel takes it");
        node.set_read_timeout(Some(A_WHILE)).expect("it is no zero");
        let nothing = node.read(&mut [0; 8]).expect_err("nothing comes through a cut");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        node.write_all(b"back").expect("the kernel takes it");
        assert_eq!(read(&mut client, 4), b"back");
        network.heal();
        node.set_read_timeout(Some(PATIENCE)).expect("it is no zero");
        assert_eq!(read(&mut node, 6), b"onetwo");
        drop(client);
        assert_eq!(node.read(&mut [0; 8]).expect("it is closed in order"), 0);
    }

    #[test]
    fn what_is_delayed_comes_late_and_in_order() {
        let Line { network, mut client, mut node, .. } = line();
        let slow = Shape { delay: A_WHILE, jitter: A_WHILE, ..Shape::default() };
        network.shape(network.clients(), 0, slow);
        let begun = Instant::now();
        for byte in 0..20 {
            client.write_all(&[byte]).expect("the kernel takes it");
        }
        assert_eq!(read(&mut node, 20), (0..20).collect::<Vec<u8>>());
        assert!(begun.elapsed() >= A_WHILE, "it took {:?}", begun.elapsed());
    }

    #[test]
    fn a_reset_is_one_and_a_closed_port_refuses() {
        let Line { network, ports, mut client, mut node } = line();
        // It is listed a moment after the node took it.
        crate::harness::until("it is reset", || (network.reset(0) == 1).then_some(()));
        for stream in [&mut client, &mut node] {
            let gone = stream.read(&mut [0; 8]).expect_err("it is reset");
            assert_eq!(gone.kind(), ErrorKind::ConnectionReset);
        }
        network.refuse(0, true);
        // One that waited to be taken when the port closed is reset.
        crate::harness::until("it is refused", || {
            let error = TcpStream::connect(("127.0.0.1", ports.known)).err()?;
            (error.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
        network.refuse(0, false);
        crate::harness::until("it is taken again", || {
            TcpStream::connect(("127.0.0.1", ports.known)).ok()
        });
    }

    #[test]
    fn a_lossy_way_breaks_connections() {
        let Line { network, mut client, mut node, .. } = line();
        let breaks = Shape { reset_per_mille: 1000, ..Shape::default() };
        network.shape(network.clients(), 0, breaks);
        client.write_all(b"x").expect("the kernel takes it");
        let gone = node.read(&mut [0; 8]).expect_err("it is reset");
        assert_eq!(gone.kind(), ErrorKind::ConnectionReset);
    }
}
