//! Who holds the other end of a connection on this machine: told by the kernel, without a word from
//! either end.
//!
//! All nodes dial from 127.0.0.1, so an address says nothing. The kernel's table of connections
//! names the socket, and the files of each node's process say whose it is. One look costs about a
//! millisecond, once for each connection; one that finds nobody, ten times as much.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the number of the socket stands in a line of the kernel's table.
const INODE_COLUMN: usize = 9;

/// The kernel's table is no snapshot: while others come and go, a line may be missed. So many looks
/// find it.
const LOOKS: usize = 10;

/// The node whose process dialled `to` from `from`; none if it is nobody of `nodes`. `directory` is
/// the one in which each node has its own, with its executable.
pub fn node_at(
    from: SocketAddr,
    to: SocketAddr,
    directory: &Path,
    nodes: &[&'static str],
) -> Option<usize> {
    let socket = format!("socket:[{}]", socket_number(from, to)?);
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        let Ok(executable) = fs::read_link(path.join("exe")) else { continue };
        let Ok(below) = executable.strip_prefix(directory) else { continue };
        let node = nodes.iter().position(|node| below.starts_with(node));
        let Some(node) = node else { continue };
        let mut files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let holds = |target: &Path| target.as_os_str().as_bytes() == socket.as_bytes();
        if files.any(|file| fs::read_link(file.path()).is_ok_and(|target| holds(&target))) {
            return Some(node);
        }
    }
    None
}

/// The number of the socket that dialled `to` from `from`; none if it is closed already.
fn socket_number(from: SocketAddr, to: SocketAddr) -> Option<String> {
    let (from, to) = (as_the_kernel_writes(from)?, as_the_kernel_writes(to)?);
    (0..LOOKS).find_map(|_| number_in(&fs::read_to_string("/proc/net/tcp").ok()?, &from, &to))
}

fn number_in(table: &str, from: &str, to: &str) -> Option<String> {
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace());
    let number = lines.find_map(|mut columns| {
        let is_it = columns.nth(1) == Some(from) && columns.next() == Some(to);
        // Three columns are taken already.
        if is_it { columns.nth(INODE_COLUMN - 3) } else { None }
    });
    // A connection that is closed already belongs to nobody.
    number.filter(|number| *number != "0").map(str::to_owned)
}

/// The bytes of the address as a number of this machine.
fn as_the_kernel_writes(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

#[test]
fn a_socket_is_found_by_its_ends() {
    use std::os::fd::AsRawFd;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let dialled = listener.local_addr().expect("it is bound");
    let client = std::net::TcpStream::connect(dialled).expect("it listens");
    let link = fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd()));
    let link = link.expect("our own files can be seen").display().to_string();
    let address = client.local_addr().expect("it is connected");
    let number = socket_number(address, dialled).expect("it is listed");
    assert_eq!(format!("socket:[{number}]"), link);
    let nodes = ["node1"];
    assert_eq!(node_at(address, dialled, Path::new("/nowhere"), &nodes), None, "it is no node's");
    // The test itself is one whose executable lies where it lies.
    let executable = std::env::current_exe().expect("there is one");
    let name: &'static str =
        executable.file_name().and_then(|n| n.to_str()).expect("text").to_owned().leak();
    let directory = executable.parent().expect("it is a file");
    assert_eq!(node_at(address, dialled, directory, &["other", name]), Some(1));
}
