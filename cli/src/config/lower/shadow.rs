//! `[policy.shadow]`: the candidate for the next policy.

use super::{Key, Lowering, values};
use crate::config::model::{PolicyShadow, Sample};
use crate::config::raw::RawShadow;

impl Lowering<'_> {
    /// `None` only where a problem was reported.
    pub(super) fn shadow(&mut self, at: &Key, raw: RawShadow) -> Option<PolicyShadow> {
        let base = self.base;
        let path = self.required(raw.path, at.child("path"), values::path(base));
        let sample = self.optional(raw.sample, at.child("sample"), values::sample);
        Some(PolicyShadow {
            path: path?,
            sample: sample.unwrap_or(Sample::EVERY),
        })
    }
}
