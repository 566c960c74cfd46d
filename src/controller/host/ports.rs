//! Addresses of this machine that somebody else has.

use super::process;
use crate::controller::plan::PortHolder;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Those of the addresses that cannot be bound because somebody else has them.
pub(super) fn held(listen: &[String]) -> Vec<PortHolder> {
    let in_use = |address: &SocketAddr| {
        TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let addresses = listen.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
    let found = addresses.filter(in_use).map(|address| PortHolder {
        address: address.to_string(),
        process: process::listener(address),
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_its_holder() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let found = held(std::slice::from_ref(&address));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address, address);
        assert_eq!(found[0].process.as_ref().map(|(pid, _)| *pid), Some(std::process::id()));
        drop(socket);
        assert_eq!(held(&[address]), []);
    }
}
