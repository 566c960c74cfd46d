//! Waiting: always for something that can be looked at, and never without an end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks until there is an answer or `limit` is over; at least once, and a last time at the end.
///
/// # Errors
/// What a look fails with.
#[expect(clippy::disallowed_methods, reason = "it sleeps between looks, not for a condition")]
pub fn until<T, E>(
    limit: Duration,
    look_every: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + limit;
    loop {
        // Read before the look, so that the last look comes after the deadline.
        let over = Instant::now() >= deadline;
        let seen = look()?;
        if seen.is_some() || over {
            return Ok(seen);
        }
        std::thread::sleep(look_every);
    }
}

/// How many hosts are worked on at a time. Each is an ssh process here, and a login at a bastion
/// that may stand before all of them: sshd begins to turn logins away at ten that are not through.
const FAN_OUT: usize = 8;

/// Does the same for each of them, several at a time, and gives what came of it in their order.
///
/// # Panics
/// When the work does.
pub fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|threads| {
        for _ in 0..FAN_OUT.min(items.len()) {
            threads.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = work(item);
                    *results[at].lock().expect("no holder of this lock panics") = Some(result);
                }
            });
        }
    });
    let take = |result: Mutex<Option<R>>| {
        result.into_inner().ok().flatten().expect("every item was worked on")
    };
    results.into_iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_worked_on_and_keep_their_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            at_once(&items, |item| item * 2),
            items.iter().map(|i| i * 2).collect::<Vec<_>>()
        );
        assert!(at_once(&[] as &[usize], |item| *item).is_empty());
    }

    #[test]
    fn it_looks_again_until_there_is_something_or_the_end() {
        let mut looks = 0;
        let mut look = |wanted: u32| {
            looks += 1;
            Ok::<_, ()>((looks >= wanted).then_some(looks))
        };
        assert_eq!(until(Duration::MAX / 4, Duration::ZERO, || look(3)), Ok(Some(3)));
        assert_eq!(until(Duration::ZERO, Duration::ZERO, || look(9)), Ok(None));
        assert_eq!(until(Duration::ZERO, Duration::ZERO, || Err::<Option<()>, _>("no")), Err("no"));
    }
}
