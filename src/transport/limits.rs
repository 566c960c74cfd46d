//! Who may be connected, and for how long without having said who they are.
//!
//! Strangers cost memory and a key exchange each, so they are bounded in number, per source and in
//! time. When there are too many, the oldest of them goes, not the newest: a client that means it
//! is through within milliseconds, while whoever fills the table sits in it. So a flood from one
//! address costs only that address, and peers still get in.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Bits of an IPv6 address that name one customer's network; the rest is theirs to vary.
const IPV6_SOURCE_MASK: u128 = !0 << 64;

/// Counts connections and cuts strangers.
#[derive(Debug)]
pub(super) struct Admission {
    unauthenticated_max: usize,
    per_source_max: usize,
    connections_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: usize,
    /// In order of arrival.
    strangers: BTreeMap<u64, Stranger>,
    per_source: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    cut: CancellationToken,
}

/// One connection's place. Dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    number: u64,
    cut: CancellationToken,
}

/// What one more connection means.
#[derive(Debug)]
pub(super) enum Entry {
    /// There are too many altogether.
    Full,
    /// It may go on; `cut` strangers had to go for it.
    Place { place: Place, cut: usize },
}

impl Admission {
    pub(super) fn new(
        unauthenticated_max: usize,
        per_source_max: usize,
        connections_max: usize,
    ) -> Arc<Admission> {
        let state = Mutex::new(State::default());
        Arc::new(Admission { unauthenticated_max, per_source_max, connections_max, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn enter(self: &Arc<Admission>, address: IpAddr) -> Entry {
        let source = source_of(address);
        let mut state = self.lock();
        let mut cut = 0;
        if state.per_source.get(&source).is_some_and(|count| *count >= self.per_source_max) {
            cut += state.cut_oldest(|stranger| stranger.source == source);
        }
        if state.strangers.len() >= self.unauthenticated_max {
            cut += state.cut_oldest(|_| true);
        }
        if state.connections >= self.connections_max {
            return Entry::Full;
        }
        state.connections += 1;
        state.next += 1;
        let number = state.next;
        let token = CancellationToken::new();
        state.strangers.insert(number, Stranger { source, cut: token.clone() });
        *state.per_source.entry(source).or_default() += 1;
        drop(state);
        Entry::Place { place: Place { admission: self.clone(), number, cut: token }, cut }
    }

    /// Connections, and those among them that have not authenticated.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.connections, state.strangers.len())
    }
}

impl State {
    fn cut_oldest(&mut self, eligible: impl Fn(&Stranger) -> bool) -> usize {
        let oldest = self.strangers.iter().find(|(_, stranger)| eligible(stranger));
        let Some(number) = oldest.map(|(number, _)| *number) else { return 0 };
        if let Some(stranger) = self.forget(number) {
            stranger.cut.cancel();
        }
        1
    }

    fn forget(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(count) = self.per_source.get_mut(&stranger.source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&stranger.source);
            }
        }
        Some(stranger)
    }
}

impl Place {
    /// The connection said who it is: it is no stranger any more, and cannot be cut as one.
    pub(super) fn authenticated(&self) {
        self.admission.lock().forget(self.number);
    }

    /// Resolves when the connection has to go to make room.
    pub(super) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.forget(self.number);
        state.connections -= 1;
    }
}

fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & IPV6_SOURCE_MASK)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn enter(admission: &Arc<Admission>, from: IpAddr) -> (Place, usize) {
        match admission.enter(from) {
            Entry::Place { place, cut } => (place, cut),
            Entry::Full => panic!("full"),
        }
    }

    #[test]
    fn the_oldest_stranger_goes_first() {
        let admission = Admission::new(2, 10, 100);
        let (first, _) = enter(&admission, address(1));
        let (second, _) = enter(&admission, address(2));
        let (third, cut) = enter(&admission, address(3));
        assert_eq!(cut, 1);
        assert!(first.cut.is_cancelled());
        assert!(!second.cut.is_cancelled() && !third.cut.is_cancelled());
    }

    #[test]
    fn one_source_cuts_only_its_own() {
        let admission = Admission::new(10, 2, 100);
        let (other, _) = enter(&admission, address(9));
        let places: Vec<_> = (0..5).map(|_| enter(&admission, address(1)).0).collect();
        let cut: Vec<_> = places.iter().map(|place| place.cut.is_cancelled()).collect();
        assert_eq!(cut, [true, true, true, false, false]);
        assert!(!other.cut.is_cancelled());
    }

    #[test]
    fn the_authenticated_are_not_cut_and_places_come_back() {
        let admission = Admission::new(1, 1, 2);
        let (known, _) = enter(&admission, address(1));
        known.authenticated();
        let (stranger, cut) = enter(&admission, address(1));
        assert_eq!(cut, 0);
        assert_eq!(admission.counts(), (2, 1));
        assert!(matches!(admission.enter(address(2)), Entry::Full));
        drop(stranger);
        drop(known);
        assert_eq!(admission.counts(), (0, 0));
        assert!(admission.lock().per_source.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let c: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(source_of(a), source_of(b));
        assert_ne!(source_of(a), source_of(c));
        assert_eq!(source_of(mapped), address(1));
    }
}
