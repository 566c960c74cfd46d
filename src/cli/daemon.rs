//! `paxos node --config FILE`: puts a node together and runs it until it is told to stop.
//!
//! Order matters. The log is opened first, because its lock says that no other process is this
//! node; the genesis is consumed before anything can be said to anybody; the SSH server listens
//! before links are dialled; and the local socket appears last, because whoever finds it there
//! takes the node for ready.

use crate::api::Api;
use crate::api::local::{self, LocalSocket};
use crate::cli::notify::Notifier;
use crate::cli::output;
use crate::controller::host::local::STOP_LIMIT;
use crate::disk::log::{self, DiskLog};
use crate::disk::{self, LogError, LogEvent, LogOwner};
use crate::node::clock::SystemWorld;
use crate::node::driver::{Driver, Judge, Parts, RebuildError};
use crate::node::event::Event;
use crate::node::founding;
use crate::node::handle::NodeHandle;
use crate::node::inbox::Inbox;
use crate::node::links::{Arrivals, Departures};
use crate::node::reforming;
use crate::node::report::Identity;
use crate::node::runner::{self, Runner};
use crate::node::settings::Settings;
use crate::paxos::ballot::{ClusterId, NodeId};
use crate::paxos::configuration::{Configuration, Member};
use crate::paxos::record::Recovered;
use crate::telemetry::logging::{self, LogFormat};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::watchdog::{Beat, Watchdog, Watched, Work};
use crate::transport::LocalNode;
use crate::transport::counters::Counters;
use crate::transport::identity::TrustError;
use crate::transport::keyring::Keyring;
use crate::transport::peers::{PeerAddress, Peers, PeersOptions};
use crate::transport::server::{Server, ServerOptions, Sessions};
use crate::transport::settings::Settings as TransportSettings;
use crate::transport::succession::Published;
use crate::wire::build::Build;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long a stopping leader waits for somebody to take over. Longer than a transfer takes by far,
/// and shorter than any supervisor's patience.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// How long the node's thread may take to end, and the log to write what it holds. A disk that
/// hangs longer would have a supervisor kill the process; what is left unwritten then was never
/// acknowledged.
const NODE_STOP_MAX: Duration = Duration::from_secs(10);

/// How often the runtime shows that it turns.
const RUNTIME_TURN: Duration = Duration::from_millis(100);

/// The longest time that the runtime may not come to a task that is due. Handshakes and large
/// answers take milliseconds.
const RUNTIME_TURN_MAX: Duration = Duration::from_secs(2);

/// How long the asynchronous side may take to end: its connections first, and whatever of it is
/// left when all else is done.
const STOP_GRACE: Duration = Duration::from_secs(2);

// Whoever tells a node to stop waits until it has, and does not take it for hung before.
const _: () = assert!(
    HAND_OVER_MAX.as_secs() + NODE_STOP_MAX.as_secs() + 2 * STOP_GRACE.as_secs()
        < STOP_LIMIT.as_secs()
);

/// Runs a node in the foreground. Answers the exit status.
pub fn run(config: &Path) -> u8 {
    if let Err(error) = logging::init(LogFormat::Text, "info") {
        let hint = "unset the variable that it names";
        return complain(&Failure::told(Code::BadSettings, &error.to_string(), hint));
    }
    end_on_panic();
    let settings = match Settings::load(config) {
        Ok(settings) => settings,
        Err(error) => {
            let hint = "mend the file, or deploy again to have it written anew";
            return complain(&Failure::told(Code::BadSettings, &error.to_string(), hint));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&internal("cannot start the runtime", &error)),
    };
    let outcome = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(STOP_GRACE);
    match outcome {
        Ok(()) => 0,
        Err(failure) => complain(&failure),
    }
}

fn complain(failure: &Failure) -> u8 {
    error!("{}", failure.message);
    output::failure(failure, Format::Table)
}

fn internal(what: &str, error: &dyn std::fmt::Display) -> Failure {
    let hint = "see what the log says above it, check the limits of threads and open files \
                (ulimit -a), and start the node again";
    Failure::new(Code::Internal, format!("{what}: {error}"), hint)
}

/// A node that lost one of its threads looks alive and is not; the process ends instead, and
/// whoever watches it starts it again. Tasks of single connections are the exception: russh's
/// panics end the connection.
fn end_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let thread = std::thread::current();
        if thread.name() == Some(NODE_THREAD) {
            error!("the node's thread panicked; the process ends");
            std::process::abort();
        }
    }));
}

const NODE_THREAD: &str = "node";

/// What the log may say while its first record becomes durable: that it is, or that the disk is
/// full and then that it is not.
const FOUNDING_EVENTS_MAX: usize = 8;

/// What is read before the node exists.
struct Ground {
    keyring: Arc<Keyring>,
    log: DiskLog,
    recovered: Recovered<Bytes>,
    inbox: Arc<Inbox>,
    metrics: Metrics,
    watchdog: Watchdog,
}

/// How long a predecessor that was killed may hold the log: a write that a busy disk takes its time
/// over. Whoever still has it then is no predecessor, and opening the log says who.
const LOG_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often it is looked at.
const LOG_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until nobody has the log open, but not for long.
async fn wait_for_log(directory: &Path) {
    let until = Instant::now() + LOG_WAIT_MAX;
    while log::is_in_use(directory) && Instant::now() < until {
        tokio::time::sleep(LOG_LOOK_EVERY).await;
    }
}

fn prepare(settings: &Settings) -> Result<Ground, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        let hint = "deploy again: it delivers keys, certificates and settings anew";
        Failure::told(Code::BadSettings, &error.to_string(), hint)
    };
    let keyring = Keyring::open(&settings.keys_dir, &settings.data_dir);
    let keyring = keyring.map_err(|error| match &error {
        // A disk that does not answer just now wants another try, and no person yet.
        TrustError::Read { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
            Failure::told(Code::Internal, &error.to_string(), "see whether its disk is well")
        }
        _ => bad(&error),
    })?;
    let cluster = keyring.trust().load().cluster().to_owned();
    if cluster != settings.cluster {
        return Err(bad(&format!(
            "the keys in {} are for cluster {cluster}, the settings for {}; deploy again",
            settings.keys_dir.display(),
            settings.cluster
        )));
    }
    let owner = LogOwner { cluster_name: settings.cluster.clone(), node: settings.node_id() };
    let inbox = Arc::new(Inbox::default());
    // Read only while the log begins, which takes one sync; afterwards nobody listens there.
    let (founded, founding_events) = mpsc::sync_channel(FOUNDING_EVENTS_MAX);
    let events = Arc::clone(&inbox);
    let on_event = move |event: LogEvent| {
        let _nobody_listens = founded.try_send(event);
        events.push_own(match event {
            LogEvent::Durable { position, took } => Event::Persisted(position, took),
            LogEvent::Full => Event::DiskFull(true),
            LogEvent::Room => Event::DiskFull(false),
        });
    };
    let metrics = Metrics::new(&settings.cluster, &settings.node);
    let directory = settings.data_dir.join("log");
    let watchdog = Watchdog::new(metrics.loops.clone());
    let beat = watchdog.watch(disk::watched());
    let opened = log::open(&directory, owner, metrics.log.clone(), beat, on_event);
    let (mut log, mut recovered) = opened.map_err(|error| {
        let code = match error {
            LogError::Corrupt { .. } | LogError::Record { .. } => Code::Corrupt,
            _ => Code::BadSettings,
        };
        let hint = "leave the log as it is, and run the version of the program that wrote it";
        Failure::told(code, &error.to_string(), hint)
    })?;
    founding::found(&settings.data_dir, &mut log, &mut recovered, &founding_events).map_err(
        |error| {
            let hint = "put the genesis file back as deploy handed it over to this node";
            Failure::told(Code::BadSettings, &error.to_string(), hint)
        },
    )?;
    let me = settings.node_id();
    reforming::reformed(&settings.data_dir, me, &mut log, &mut recovered, &founding_events)
        .map_err(|error| {
            let hint = "remove it if it lies here by mistake; else see paxos-ctl recover";
            Failure::told(Code::BadSettings, &error.to_string(), hint)
        })?;
    drop(founding_events);
    keyring.set_members(member_names(&recovered));
    Ok(Ground { keyring: Arc::new(keyring), log, recovered, inbox, metrics, watchdog })
}

fn member_names(recovered: &Recovered<Bytes>) -> BTreeMap<NodeId, String> {
    let members = recovered.members().into_iter().flat_map(Configuration::members);
    members.map(|(id, member)| (*id, member.name.clone())).collect()
}

/// Whom to dial: the members that the log names, or the settings' hints while it names none.
fn addresses(settings: &Settings, recovered: &Recovered<Bytes>) -> Vec<PeerAddress> {
    match recovered.members() {
        Some(newest) => {
            let members = newest.members().iter();
            let address = |(id, member): (&NodeId, &Member)| {
                let (name, address) = (member.name.clone(), member.address.clone());
                PeerAddress { id: *id, name, address }
            };
            members.map(address).collect()
        }
        None => {
            let hints = settings.peers.iter();
            let address = |hint: &crate::node::settings::PeerHint| PeerAddress {
                id: NodeId(hint.id),
                name: hint.name.clone(),
                address: hint.address.clone(),
            };
            hints.map(address).collect()
        }
    }
}

type DiskDriver = Driver<DiskLog, Departures, SystemWorld>;

/// A node that listens, with all its parts, about to run.
struct Assembled {
    handle: NodeHandle,
    api: Arc<dyn Sessions>,
    server: Server,
    links: Arc<Peers>,
    runner: Runner<DiskLog, Departures, SystemWorld>,
}

/// Which trust bundles of the log this node believes.
fn judge(keyring: &Keyring) -> Judge {
    let mut succession = keyring.succession();
    Box::new(move |epoch, signed| succession.judge(epoch, signed))
}

/// The driver, with its store as the log has it.
fn rebuild(parts: Parts<DiskLog, Departures, SystemWorld>) -> Result<DiskDriver, Failure> {
    let begun = Instant::now();
    let driver = Driver::new(parts).map_err(|error| {
        let code = match error {
            RebuildError::Log(_) => Code::Corrupt,
            RebuildError::Version { .. } => Code::BadSettings,
        };
        Failure::told(code, &error.to_string(), "keep the directory for inspection")
    })?;
    info!(took = ?begun.elapsed(), "the store was rebuilt from the log");
    Ok(driver)
}

fn measure_ssh(metrics: &mut Metrics, counters: &Arc<Counters>) {
    let counted = Arc::clone(counters);
    metrics.add_totals("ssh", move || counted.all());
}

fn measure_trust(metrics: &mut Metrics, keyring: &Arc<Keyring>) {
    let (totals, levels) = (Arc::clone(keyring), Arc::clone(keyring));
    metrics.add_totals("trust", move || totals.totals());
    metrics.add_levels("trust", move || levels.levels(SystemTime::now()));
}

fn local_node(settings: &Settings, cluster_id: Option<ClusterId>) -> LocalNode {
    let cluster_id = cluster_id.map_or_else(String::new, |id| id.to_string());
    LocalNode { id: settings.node_id(), cluster: settings.cluster.clone(), cluster_id }
}

async fn assemble(settings: &Settings, ground: Ground) -> Result<Assembled, Failure> {
    let Ground { keyring, log, recovered, inbox, mut metrics, watchdog } = ground;
    let counters = Arc::new(Counters::default());
    measure_ssh(&mut metrics, &counters);
    measure_trust(&mut metrics, &keyring);
    let metrics = Arc::new(metrics);
    let arrivals = Arc::new(Arrivals::new(Arc::clone(&inbox), Arc::clone(&metrics)));
    let cluster_id = recovered.genesis.as_ref().map(|genesis| genesis.cluster);
    let local = local_node(settings, cluster_id);
    let options = PeersOptions {
        local: local.clone(),
        settings: TransportSettings::default(),
        trust: Arc::clone(keyring.trust()),
        keys: Arc::clone(keyring.keys()),
        counters: Arc::clone(&counters),
        watchdog: watchdog.clone(),
    };
    let links = Arc::new(Peers::start(options, Arc::clone(&arrivals) as _));
    arrivals.attach(Arc::clone(&links));

    let world = SystemWorld::start();
    let parts = Parts {
        id: settings.node_id(),
        cluster: settings.cluster.clone(),
        log,
        recovered,
        peers: Departures(Arc::clone(&links)),
        world,
        bounds: settings.election_timeout,
        metrics: metrics.consensus.clone(),
        judge: judge(&keyring),
    };
    let driver = rebuild(parts)?;
    follow_published(driver.bundles(), &keyring);
    let (cluster, node) = (settings.cluster.clone(), settings.node.clone());
    let identity = Identity { cluster, cluster_id, node, id: settings.node_id() };
    let status = Arc::new(ArcSwap::from_pointee(driver.status(&identity)));
    let handle = NodeHandle::new(
        Arc::clone(&inbox),
        driver.views(),
        Arc::clone(&status),
        Arc::clone(&metrics),
        watchdog.clone(),
        world.started(),
    )
    .with_keyring(Arc::clone(&keyring));
    let log_path = settings.data_dir.join("paxos.log");
    let api: Arc<dyn Sessions> = Arc::new(Api::new(handle.clone(), Arc::clone(&metrics), log_path));
    let options = ServerOptions {
        local,
        settings: TransportSettings::default(),
        trust: Arc::clone(keyring.trust()),
        keys: Arc::clone(keyring.keys()),
        peers: arrivals,
        sessions: Arc::clone(&api),
        counters,
        watchdog: watchdog.clone(),
    };
    let server = Server::bind(&settings.listen, options).await.map_err(|error| {
        // The port may be let go, and an address come up later: its watcher tries again.
        let hint = "give the node an address of this machine that is free";
        Failure::told(Code::Busy, &error.to_string(), hint)
    })?;
    let beat = watchdog.watch(runner::watched());
    let runner = Runner { driver, inbox, identity, status, metrics, beat };
    Ok(Assembled { handle, api, server, links, runner })
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    // Before any file is read: whoever delivers files and sends the signal then is either read or
    // heard, and until there is a handler the signal would end the process.
    let hangup = listen_for(SignalKind::hangup())?;
    let begun = Instant::now();
    info!(node = %settings.node, version = Build::own().version, "starts");
    let notifier = Notifier::from_environment();
    notifier.status("reads its log");
    wait_for_log(&settings.data_dir.join("log")).await;
    let waited = begun.elapsed();
    let ground = prepare(&settings)?;
    let read = begun.elapsed() - waited;
    info!(waited = ?waited, took = ?read, "the log was read");
    let (inbox, watchdog) = (Arc::clone(&ground.inbox), ground.watchdog.clone());
    let keyring = Arc::clone(&ground.keyring);
    let members = addresses(&settings, &ground.recovered);
    let Assembled { handle, api, server, links, runner } = assemble(&settings, ground).await?;
    let socket = LocalSocket::bind(&settings.data_dir).map_err(|error| {
        let hint = "check the owner of the data directory, and the space on its disk";
        Failure::told(Code::Busy, &error.to_string(), hint)
    })?;
    let stop = CancellationToken::new();
    let watcher =
        watchdog.start().map_err(|error| internal("cannot start the watchdog", &error))?;
    tokio::spawn(turn_with_the_runtime(watchdog.watch(watched_runtime())));
    tokio::spawn(take_up_keys(hangup, keyring));
    let node = std::thread::Builder::new()
        .name(NODE_THREAD.to_owned())
        .spawn(move || runner.run())
        .map_err(|error| internal("cannot start the node's thread", &error))?;
    links.set_members(members);
    let listening = server.addresses();
    let server = tokio::spawn(server.run(stop.clone()));
    let socket = tokio::spawn(socket.serve(api, watchdog.watch(local::watched())));
    let version = &Build::own().version;
    info!(node = %settings.node, addresses = ?listening, version, "ready");
    notifier.ready(&format!("{} {version} listens on {listening:?}", settings.node));

    until_told_to_stop().await?;
    notifier.stopping();
    hand_over(&handle).await;
    socket.abort();
    stop.cancel();
    if tokio::time::timeout(STOP_GRACE, server).await.is_err() {
        warn!("connections did not end in time; they are cut");
    }
    inbox.close();
    // The node's thread ends after its current batch; dropping the driver writes what the log
    // holds.
    let joined = tokio::task::spawn_blocking(move || node.join());
    let ended = match tokio::time::timeout(NODE_STOP_MAX, joined).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(_) => Err(internal("the node's thread did not end well", &"see the log")),
        Err(_elapsed) => Err(internal(
            "the process ends without its node's thread",
            &format!("it did not end within {NODE_STOP_MAX:?}; nothing acknowledged is lost"),
        )),
    };
    drop(watcher);
    if ended.is_ok() {
        info!("stopped");
    }
    ended
}

fn watched_runtime() -> Watched {
    Watched {
        name: "runtime".to_owned(),
        limit: RUNTIME_TURN_MAX,
        next: "connections, clients and links wait; look at the machine's load, and restart this \
               node if it does not turn again",
    }
}

/// Turns as long as the runtime does.
async fn turn_with_the_runtime(beat: Beat) {
    let mut turn = tokio::time::interval(RUNTIME_TURN);
    loop {
        beat.busy(Work::Waiting);
        turn.tick().await;
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| internal("cannot listen for signals", &error))
}

/// Takes the keys up anew whenever somebody delivered others and says so (SIGHUP). What comes of it
/// is in the log, the status and the metrics.
async fn take_up_keys(mut hangup: Signal, keyring: Arc<Keyring>) {
    while hangup.recv().await.is_some() {
        let keyring = Arc::clone(&keyring);
        // It reads and writes files, and connections go on meanwhile.
        let taken_up = tokio::task::spawn_blocking(move || keyring.reload());
        if let Err(error) = taken_up.await {
            error!(%error, "keys were not taken up");
        }
    }
}

/// Takes up the trust bundle that the log held, before anybody is let in by an older one, and those
/// that it brings until the node's thread has ended.
fn follow_published(mut bundles: watch::Receiver<Option<Published>>, keyring: &Arc<Keyring>) {
    if let Some(newest) = bundles.borrow_and_update().clone() {
        keyring.take_published(newest);
    }
    let keyring = Arc::clone(keyring);
    tokio::spawn(async move {
        while bundles.changed().await.is_ok() {
            let Some(newest) = bundles.borrow_and_update().clone() else { continue };
            let keyring = Arc::clone(&keyring);
            // It writes a file, and connections go on meanwhile.
            let taken_up = tokio::task::spawn_blocking(move || keyring.take_published(newest));
            if let Err(error) = taken_up.await {
                error!(%error, "the trust bundle in the log was not taken up");
            }
        }
    });
}

async fn until_told_to_stop() -> Result<(), Failure> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    // For as long as the node lives.
    tokio::select! {
        _ = terminate.recv() => info!("told to stop (SIGTERM)"),
        _ = interrupt.recv() => info!("told to stop (SIGINT)"),
    }
    Ok(())
}

/// A leader that stops has somebody else lead first, so that clients do not wait for an election.
async fn hand_over(handle: &NodeHandle) {
    let status = handle.status();
    if status.leader.as_ref().is_none_or(|(leader, _)| *leader != status.id) {
        return;
    }
    if status.members.len() < 2 {
        return;
    }
    match handle.transfer(None, Instant::now() + HAND_OVER_MAX).await {
        Ok(leader) => info!(%leader, "leadership handed over"),
        Err(error) => warn!(%error, "stops while it leads"),
    }
}
