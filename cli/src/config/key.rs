//! Where a value stands in the configuration: `identity.entry[2].selectors[0]`.

use std::fmt;

/// The path of a key from the root of the file.
///
/// It is compared with its indices and shown without them (`identity.entry.selectors`): the
/// caret under the text says which one is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Vec<Segment>);

/// One step of a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    /// A key of a table.
    Name(String),
    /// A position in an array, from 0.
    Item(usize),
}

impl Key {
    /// A section or key at the root of the file.
    pub(crate) fn of(name: &str) -> Self {
        Self::default().child(name)
    }

    /// The registration entry at `index`, counted from 0 in file order.
    pub(crate) fn entry(index: usize) -> Self {
        Self::of("identity").child("entry").item(index)
    }

    /// The component at `index`, counted from 0 in file order.
    pub(crate) fn component(index: usize) -> Self {
        Self::of("component").item(index)
    }

    /// The listener at `index`, counted from 0 in file order.
    pub(crate) fn listener(index: usize) -> Self {
        Self::of("listener").item(index)
    }

    /// The outbound listener at `index`, counted from 0 in file order.
    pub(crate) fn egress(index: usize) -> Self {
        Self::of("egress").item(index)
    }

    /// The directory of SVID files at `index`, counted from 0 in file order.
    pub(crate) fn svid_file(index: usize) -> Self {
        Self::of("svid_file").item(index)
    }

    /// The bundle at `index`, counted from 0 in file order.
    pub(crate) fn bundle(index: usize) -> Self {
        Self::of("policy").child("bundle").item(index)
    }

    /// The key `name` of the table that this key stands for.
    pub(crate) fn child(&self, name: &str) -> Self {
        self.with(Segment::Name(name.to_owned()))
    }

    /// The element `index` of the array that this key stands for.
    pub(crate) fn item(&self, index: usize) -> Self {
        self.with(Segment::Item(index))
    }

    /// What this key is part of, the root being part of nothing.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_last()?;
        Some(Self(parent.to_vec()))
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The table that this key stands for, as its header is written.
    pub(super) fn header(&self) -> String {
        match self.0.last() {
            None => "the file".to_owned(),
            Some(Segment::Name(_)) => format!("[{self}]"),
            Some(Segment::Item(_)) => format!("[[{self}]]"),
        }
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for segment in &self.0 {
            if let Segment::Name(name) = segment {
                write!(formatter, "{separator}{name}")?;
                separator = ".";
            }
        }
        Ok(())
    }
}
