//! Compiled matchers that are kept for their next use.

use std::mem;

use lru::LruCache;

/// What an entry takes besides its key and its matcher, in bytes.
const ENTRY_BYTES: usize = 256;

/// What a compiled matcher takes.
pub(super) trait Matcher {
    /// Bytes in memory, about.
    fn bytes(&self) -> usize;
}

/// Matchers by pattern and options, the most recently used first.
///
/// Patterns may come from a request, so a new entry is on trial: only one that
/// is used again moves to where the patterns of the policy are, and a stream
/// of patterns that are used once cannot push those out.
pub(super) struct MatcherCache<M> {
    trial: Segment<M>,
    proven: Segment<M>,
    /// The key that is looked up; kept for its memory.
    key: String,
}

/// Entries up to a number of bytes. `None` is a pattern that does not compile.
struct Segment<M> {
    entries: LruCache<Box<str>, Option<M>>,
    bytes: usize,
    capacity: usize,
}

impl<M: Matcher> MatcherCache<M> {
    /// A cache for this many bytes of matchers.
    pub(super) fn new(capacity: usize) -> Self {
        let trial = capacity.div_euclid(3);
        Self {
            trial: Segment::new(trial),
            proven: Segment::new(capacity.saturating_sub(trial)),
            key: String::new(),
        }
    }

    /// The matcher of a pattern under some options, compiled if it is not
    /// there; `None` if the options or the pattern are invalid.
    pub(super) fn find(
        &mut self,
        options: impl FnOnce(&mut String) -> Option<()>,
        pattern: &str,
        compile: impl FnOnce(&str, &str) -> Option<M>,
    ) -> Option<&M> {
        let mut key = mem::take(&mut self.key);
        key.clear();
        // The place of the end of the options keeps them apart from the pattern.
        key.push('\0');
        let written = options(&mut key);
        let options_end = key.len();
        key.push_str(pattern);
        let end = u32::try_from(options_end).ok().and_then(char::from_u32);
        key.extend(end);
        self.key = key;
        written?;
        end?;

        if self.proven.entries.contains(self.key.as_str()) {
            return self.proven.entries.get(self.key.as_str())?.as_ref();
        }
        if let Some((key, matcher)) = self.trial.take(&self.key) {
            for (key, matcher) in self.proven.insert(key, matcher) {
                self.trial.insert(key, matcher);
            }
            return self.proven.entries.get(self.key.as_str())?.as_ref();
        }
        let options = self.key.get(1..options_end)?;
        let matcher = compile(options, pattern);
        self.trial.insert(self.key.as_str().into(), matcher);
        self.trial.entries.get(self.key.as_str())?.as_ref()
    }
}

impl<M: Matcher> Segment<M> {
    fn new(capacity: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            capacity,
        }
    }

    fn take(&mut self, key: &str) -> Option<(Box<str>, Option<M>)> {
        let (key, matcher) = self.entries.pop_entry(key)?;
        self.bytes = self.bytes.saturating_sub(Self::weight(&key, &matcher));
        Some((key, matcher))
    }

    /// Adds an entry, which is never pushed out by itself, and gives what had
    /// to go for it.
    fn insert(&mut self, key: Box<str>, matcher: Option<M>) -> Vec<(Box<str>, Option<M>)> {
        self.bytes = self.bytes.saturating_add(Self::weight(&key, &matcher));
        self.entries.put(key, matcher);
        let mut gone = Vec::new();
        while self.bytes > self.capacity && self.entries.len() > 1 {
            let Some((key, matcher)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(Self::weight(&key, &matcher));
            gone.push((key, matcher));
        }
        gone
    }

    fn weight(key: &str, matcher: &Option<M>) -> usize {
        let matcher = matcher.as_ref().map_or(0, Matcher::bytes);
        ENTRY_BYTES
            .saturating_add(key.len())
            .saturating_add(matcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sized(usize);

    impl Matcher for Sized {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    /// Looks a pattern up and says whether it was compiled.
    fn compiled(cache: &mut MatcherCache<Sized>, options: &str, pattern: &str) -> bool {
        let mut compiled = false;
        let set = |key: &mut String| {
            key.push_str(options);
            Some(())
        };
        cache.find(set, pattern, |given, _| {
            assert_eq!(given, options);
            compiled = true;
            Some(Sized(1_000))
        });
        compiled
    }

    #[test]
    fn patterns_that_are_used_again_outlive_a_flood_of_new_ones() {
        let mut cache = MatcherCache::new(100_000);
        for pattern in ["a", "b"] {
            assert!(compiled(&mut cache, ".", pattern));
            assert!(!compiled(&mut cache, ".", pattern));
        }
        for number in 0..10_000 {
            compiled(&mut cache, ".", &number.to_string());
        }
        for pattern in ["a", "b"] {
            assert!(!compiled(&mut cache, ".", pattern), "{pattern}");
        }
        assert!(cache.trial.bytes <= cache.trial.capacity);
        assert!(cache.trial.entries.len() < 100);
    }

    #[test]
    fn a_flood_of_patterns_used_twice_stays_within_bounds() {
        let mut cache = MatcherCache::new(100_000);
        for number in 0..10_000 {
            let pattern = number.to_string();
            compiled(&mut cache, "", &pattern);
            compiled(&mut cache, "", &pattern);
        }
        for segment in [&cache.trial, &cache.proven] {
            assert!(segment.bytes <= segment.capacity);
            assert!(segment.entries.len() < 100);
        }
    }

    #[test]
    fn options_are_kept_apart_from_patterns() {
        let mut cache = MatcherCache::new(100_000);
        for (options, pattern) in [("", "ab"), ("a", "b"), ("ab", ""), ("", "\u{1}ab")] {
            assert!(
                compiled(&mut cache, options, pattern),
                "{options} {pattern}"
            );
        }
    }

    #[test]
    fn what_does_not_compile_is_compiled_once() {
        let mut cache: MatcherCache<Sized> = MatcherCache::new(100_000);
        assert!(cache.find(|_| Some(()), "x", |_, _| None).is_none());
        let again = cache.find(|_| Some(()), "x", |_, _| panic!("compiled again"));
        assert!(again.is_none());
        assert!(cache.find(|_| None, "x", |_, _| Some(Sized(1))).is_none());
    }

    #[test]
    fn one_entry_may_be_larger_than_the_cache() {
        let mut cache = MatcherCache::new(10);
        assert!(compiled(&mut cache, "", "a"));
        assert!(!compiled(&mut cache, "", "a"));
        assert!(compiled(&mut cache, "", "b"));
    }
}
