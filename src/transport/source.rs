//! The `source-address` option of a certificate: from where it may be used.
//!
//! A comma-separated list of addresses and CIDR blocks, as OpenSSH writes it. Nothing else is
//! understood: no names, no wildcards, no negation. A list that is not understood as a whole must
//! allow nothing.

use std::net::IpAddr;
use std::str::FromStr;

/// Blocks of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressList(Vec<Block>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    network: IpAddr,
    bits: u32,
}

impl AddressList {
    /// Whether an address lies in one of the blocks. IPv4 that arrived in IPv6 clothes counts as
    /// IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|block| block.contains(address))
    }
}

impl Block {
    fn contains(self, address: IpAddr) -> bool {
        // A shift by the full width, for a prefix of no bits, leaves nothing to differ in.
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for AddressList {
    type Err = String;

    fn from_str(text: &str) -> Result<AddressList, String> {
        text.split(',').map(parse_block).collect::<Result<_, _>>().map(AddressList)
    }
}

fn parse_block(text: &str) -> Result<Block, String> {
    let wrong = || format!("{text:?} is neither an address nor a block such as 10.0.0.0/8");
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let network: IpAddr = address.parse().map_err(|_| wrong())?;
    let width = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    if bits > width {
        return Err(wrong());
    }
    Ok(Block { network, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(list: &str, address: &str) -> bool {
        list.parse::<AddressList>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn blocks_hold_their_addresses_and_no_others() {
        assert!(contains("10.0.0.0/8,192.168.1.7", "10.200.3.4"));
        assert!(contains("10.0.0.0/8,192.168.1.7", "192.168.1.7"));
        assert!(!contains("10.0.0.0/8,192.168.1.7", "192.168.1.8"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::9"));
        assert!(!contains("2001:db8::/32", "2001:db9::9"));
        assert!(contains("::/0", "2001:db8::1"));
    }

    #[test]
    fn mapped_addresses_count_as_what_they_map() {
        assert!(contains("127.0.0.0/8", "::ffff:127.0.0.1"));
    }

    #[test]
    fn a_list_with_anything_else_in_it_is_refused_whole() {
        for list in ["", "10.0.0.0/33", "10.0.0.0/8,", "*.example.org", "!10.0.0.1", "10.0.0.0/-1"]
        {
            assert!(list.parse::<AddressList>().is_err(), "{list:?}");
        }
    }
}
