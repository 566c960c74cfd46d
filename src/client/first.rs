//! The first of several doors that opens: the next one is tried beside those that are slow, so that
//! neither a node that says nothing nor a way that takes long uses up the time.
//!
//! A door that is slow is not given up for that: on a machine that is busy, or by way of a bastion,
//! every handshake takes long, and to begin another one elsewhere makes it take longer. The cost is
//! a few handshakes whose end nobody needs.

use futures::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::time::Duration;

/// The next door is tried beside one that is not open after this time. Two handshakes, at a bastion
/// and at the node, take less even on a busy machine; with five seconds, the usual timeout, there
/// is time for the fifth door.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// Doors that are tried at once. More would be a crowd at a bastion, whose sshd turns some away
/// when ten come at once; fewer could all be dead in a cluster of nine that serves.
const AT_ONCE: usize = 5;

/// What came of it: which door opened first, if one did, and why others did not until then.
pub struct First<T, E> {
    /// The place of the door, and what it opened to.
    pub opened: Option<(usize, T)>,
    /// The places of doors that are known not to open, in the order in which that was known.
    pub closed: Vec<(usize, E)>,
}

/// Tries doors in their order, and drops all others when one opens. Each must bound its own time.
pub async fn first<T, E, F>(doors: impl IntoIterator<Item = F>) -> First<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = doors.into_iter().enumerate().peekable();
    let mut trying = FuturesUnordered::new();
    let mut closed = Vec::new();
    loop {
        if trying.len() < AT_ONCE
            && let Some((place, door)) = waiting.next()
        {
            trying.push(async move { (place, door.await) });
        }
        if trying.is_empty() {
            return First { opened: None, closed };
        }
        let has_next = waiting.peek().is_some() && trying.len() < AT_ONCE;
        tokio::select! {
            Some((place, outcome)) = trying.next() => match outcome {
                Ok(open) => return First { opened: Some((place, open)), closed },
                Err(why) => closed.push((place, why)),
            },
            () = tokio::time::sleep(NEXT_AFTER), if has_next => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Opens or does not, after so many milliseconds of a clock that nobody waits for.
    async fn door(after: u64, opens: bool) -> Result<u64, &'static str> {
        tokio::time::sleep(Duration::from_millis(after)).await;
        if opens { Ok(after) } else { Err("closed") }
    }

    async fn places(doors: &[(u64, bool)]) -> (Option<usize>, Vec<usize>) {
        let First { opened, closed } = first(doors.iter().map(|(t, opens)| door(*t, *opens))).await;
        (opened.map(|(place, _)| place), closed.into_iter().map(|(place, _)| place).collect())
    }

    #[tokio::test]
    async fn the_first_in_order_is_taken_while_it_is_quick() {
        assert_eq!(places(&[(1, true), (0, true)]).await, (Some(0), vec![]));
        assert_eq!(places(&[(1, false), (1, true), (0, true)]).await, (Some(1), vec![0]));
        assert_eq!(places(&[(0, false), (1, false)]).await, (None, vec![0, 1]));
        assert_eq!(places(&[]).await, (None, vec![]));
    }

    #[tokio::test]
    async fn who_is_slow_is_neither_waited_for_nor_given_up() {
        let never = (1_000_000, true);
        let began = Instant::now();
        assert_eq!(places(&[never, never, (0, true)]).await, (Some(2), vec![]));
        assert!(began.elapsed() >= NEXT_AFTER * 2, "it was its turn after the two before it");
        // Slower than the wait for the next, and the next is no better.
        let slow = u64::try_from(NEXT_AFTER.as_millis()).unwrap() + 200;
        assert_eq!(places(&[(slow, true), never]).await, (Some(0), vec![]));
    }

    #[tokio::test]
    async fn only_so_many_are_tried_at_once() {
        let never = (1_000_000, true);
        let mut doors = vec![never; AT_ONCE];
        doors.push((0, true));
        let limit = NEXT_AFTER * u32::try_from(AT_ONCE).unwrap() + NEXT_AFTER / 2;
        assert!(tokio::time::timeout(limit, places(&doors)).await.is_err(), "a crowd");
    }
}
