//! Rates, by the generic cell rate algorithm: one number says when the bucket is full again.

/// When the bucket is full again once one more was taken from it, or `None` where it is empty.
///
/// `full_at` is what this gave last, and 0 at first; `interval` is the time in which one more comes;
/// `burst` is how many there can be. Times are in whatever unit all of them share.
pub(super) fn take(full_at: u64, now: u64, interval: u64, burst: u64) -> Option<u64> {
    let next = full_at.max(now).saturating_add(interval);
    let latest = now.saturating_add(interval.saturating_mul(burst));
    (next <= latest).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many can be taken in a row at a time.
    fn drain(full_at: &mut u64, now: u64) -> u64 {
        let mut taken = 0;
        while let Some(next) = take(*full_at, now, 10, 5) {
            *full_at = next;
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_one_an_interval() {
        let mut full_at = 0;
        assert_eq!(drain(&mut full_at, 1000), 5);
        assert_eq!(drain(&mut full_at, 1009), 0);
        assert_eq!(drain(&mut full_at, 1010), 1);
        assert_eq!(drain(&mut full_at, 1035), 2);
        assert_eq!(drain(&mut full_at, 1040), 1);
        assert_eq!(
            drain(&mut full_at, 9000),
            5,
            "no more than the burst gathers"
        );
    }
}
