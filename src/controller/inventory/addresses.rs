//! Where a node is reached, and where it listens, as an inventory says.

use super::Checker;
use super::access::Connection;
use super::groups::Host;
use super::problem::Fault;
use super::yaml::Value;
use std::path::PathBuf;

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl Checker {
    pub(super) fn address(
        &mut self,
        host: &Host,
        connection: Connection,
    ) -> (String, Option<(PathBuf, u64)>) {
        if let Some((address, at)) = self.text(host, "paxos_address") {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            let bare = bare.unwrap_or(&address).to_owned();
            let is_ip = bare.parse::<std::net::IpAddr>().is_ok();
            if bare.is_empty() || (!is_ip && bare.contains([':', ' ', '/', '@'])) {
                let wanted = "a host name or an IP address; the port goes into paxos_port";
                let variable = "paxos_address".to_owned();
                self.problem(at.clone(), Fault::Value { variable, value: address, wanted });
            }
            return (bare, Some(at));
        }
        match (connection, self.plain_text(host, "ansible_host")) {
            (_, Some((address, at))) => (address, Some(at)),
            (Connection::Local, None) => ("127.0.0.1".to_owned(), None),
            (Connection::Ssh, None) => (host.name.clone(), None),
        }
    }

    pub(super) fn listen(
        &mut self,
        host: &Host,
        connection: Connection,
        address: &str,
        port: u16,
    ) -> Vec<String> {
        let default = match connection {
            Connection::Local => vec![host_port(address, port)],
            Connection::Ssh => vec![host_port("0.0.0.0", port), host_port("::", port)],
        };
        let Some(setting) = host.variables.get("paxos_listen").cloned() else { return default };
        let items = match &setting.value {
            Value::List(items) => items.iter().map(|item| item.value.clone()).collect(),
            other => vec![other.clone()],
        };
        let mut listen = Vec::new();
        for item in items {
            let text = match &item {
                Value::Scalar(text) => text.as_str(),
                _ => "",
            };
            match listen_address(text, port) {
                Some(address) => listen.push(address),
                None => {
                    let fault = Fault::Value {
                        variable: "paxos_listen".to_owned(),
                        value: text.to_owned(),
                        wanted: "an IP address, or IP:PORT, or a list of them",
                    };
                    self.problem((setting.file.clone(), setting.line), fault);
                }
            }
        }
        if listen.is_empty() { default } else { listen }
    }
}

fn listen_address(text: &str, port: u16) -> Option<String> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.to_string());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<std::net::IpAddr>().ok()?;
    Some(host_port(&ip.to_string(), port))
}
