//! Waiting: always for something that can be looked at, and never without an end.

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

#[cfg(test)]
mod tests {
    use super::*;

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
