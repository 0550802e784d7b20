//! `net.cidr_*`: networks as Go's `net` package reads them. An IPv4 address
//! inside an IPv6 one (`::ffff:10.0.0.1`) is the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regorus::Value;

use super::values::{members, set, text};

/// How many addresses `net.cidr_expand` gives at most.
const EXPANDED_ADDRESSES: u128 = 65_536;

/// How many pairs `net.cidr_contains_matches` compares at most.
const COMPARED_PAIRS: usize = 1_000_000;

/// Networks of one family only contain, meet and merge with their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    family: Family,
    first: u128,
    /// How many leading bits of an address are the network's.
    prefix: u32,
}

pub(super) fn cidr_is_valid(arguments: &[Value]) -> Option<Value> {
    let [network] = arguments else { return None };
    Some(text(network).and_then(Network::parse).is_some().into())
}

/// Whether a network contains an address or another network.
pub(super) fn cidr_contains(arguments: &[Value]) -> Option<Value> {
    let [network, other] = arguments else {
        return None;
    };
    let (network, other) = (network_of(network)?, text(other)?);
    Some(network.contains(Network::parse_any(other)?).into())
}

pub(super) fn cidr_intersects(arguments: &[Value]) -> Option<Value> {
    let [left, right] = arguments else {
        return None;
    };
    let (left, right) = (network_of(left)?, network_of(right)?);
    Some((left.contains(right) || right.contains(left)).into())
}

/// The pairs of indices of networks and of the addresses that they contain.
pub(super) fn cidr_contains_matches(arguments: &[Value]) -> Option<Value> {
    let [networks, others] = arguments else {
        return None;
    };
    let networks = indexed(networks)?;
    let others = indexed(others)?;
    if networks.len().saturating_mul(others.len()) > COMPARED_PAIRS {
        return None;
    }
    // Where one side is empty, the other is never looked at.
    if networks.is_empty() || others.is_empty() {
        return Some(Value::new_set());
    }
    let parsed_others = others
        .iter()
        .map(|(_, other)| Network::parse_any(other))
        .collect::<Option<Vec<_>>>()?;
    let mut pairs = Vec::new();
    for (index, network) in &networks {
        let network = Network::parse(network)?;
        for ((other_index, _), other) in others.iter().zip(&parsed_others) {
            if network.contains(*other) {
                pairs.push(Value::from(vec![index.clone(), other_index.clone()]));
            }
        }
    }
    Some(set(pairs))
}

pub(super) fn cidr_expand(arguments: &[Value]) -> Option<Value> {
    let [network] = arguments else { return None };
    let network = network_of(network)?;
    let last = network.last();
    if last.saturating_sub(network.first) >= EXPANDED_ADDRESSES {
        return None;
    }
    let addresses = (network.first..=last).map(|address| network.family.display(address));
    Some(set(addresses.map(Value::from)))
}

/// The fewest networks that hold the same addresses.
pub(super) fn cidr_merge(arguments: &[Value]) -> Option<Value> {
    let [networks] = arguments else { return None };
    let mut ranges = Vec::new();
    for network in members(networks)? {
        let network = text(network)?;
        ranges.push(mergeable(network)?);
    }
    ranges.sort_by_key(|range| (range.family, range.first, range.last));
    let mut merged: Vec<Range> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last)
                if last.family == range.family && range.first <= last.last.saturating_add(1) =>
            {
                last.last = last.last.max(range.last);
                last.name = None;
            }
            _ => merged.push(range),
        }
    }
    let names = merged.into_iter().flat_map(Range::names);
    Some(set(names.map(Value::from)))
}

/// A run of addresses, with the name of the network that it is as it was
/// given, until it is merged with another.
struct Range {
    family: Family,
    first: u128,
    last: u128,
    name: Option<String>,
}

/// A network to be merged, or an IPv4 address. OPA takes an address for the
/// whole network of its historic class, but names it by the address.
fn mergeable(given: &str) -> Option<Range> {
    let (network, shown) = match given.parse::<IpAddr>() {
        Ok(address) => {
            let (family, address) = split(address);
            if family == Family::V6 {
                return None;
            }
            let prefix = match address >> 24 {
                0..0x80 => 8,
                0x80..0xc0 => 16,
                _ => 24,
            };
            (Network::new(family, address, prefix), address)
        }
        Err(_) => {
            let network = Network::parse(given)?;
            (network, network.first)
        }
    };
    let family = network.family;
    Some(Range {
        family,
        first: network.first,
        last: network.last(),
        name: Some(format!("{}/{}", family.display(shown), network.prefix)),
    })
}

impl Range {
    fn names(self) -> Vec<String> {
        if let Some(name) = self.name {
            return vec![name];
        }
        let bits = self.family.bits();
        let mut names = Vec::new();
        let mut next = Some(self.first);
        while let Some(first) = next.filter(|first| *first <= self.last) {
            // As large a network as begins here and ends in the range.
            let fits = |size: &u32| {
                let network = Network::new(self.family, first, bits.saturating_sub(*size));
                network.first == first && network.last() <= self.last
            };
            let size = (0..=bits).take_while(fits).last().unwrap_or_default();
            let network = Network::new(self.family, first, bits.saturating_sub(size));
            names.push(format!("{}/{}", self.family.display(first), network.prefix));
            next = network.last().checked_add(1);
        }
        names
    }
}

impl Family {
    fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn display(self, address: u128) -> String {
        match self {
            Self::V4 => Ipv4Addr::from(u32::try_from(address).unwrap_or(u32::MAX)).to_string(),
            Self::V6 => Ipv6Addr::from(address).to_string(),
        }
    }
}

impl Network {
    fn new(family: Family, address: u128, prefix: u32) -> Self {
        let first = address & !Self::host_bits(family, prefix);
        Self {
            family,
            first,
            prefix,
        }
    }

    /// `10.0.0.0/8`; bits after the prefix do not count.
    fn parse(given: &str) -> Option<Self> {
        let (address, prefix) = given.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let prefix: u32 = prefix.parse().ok()?;
        let (family, bits) = match address {
            IpAddr::V4(_) => (Family::V4, 32),
            IpAddr::V6(_) => (Family::V6, 128),
        };
        if prefix > bits {
            return None;
        }
        let network = Self::new(family, whole(address), prefix);
        // A network of embedded IPv4 addresses only is a network of those.
        let embedded = Ipv6Addr::from(network.first).to_ipv4_mapped();
        Some(match (family, embedded, prefix.checked_sub(96)) {
            (Family::V6, Some(address), Some(prefix)) => {
                Self::new(Family::V4, u32::from(address).into(), prefix)
            }
            _ => network,
        })
    }

    /// An address, which is a network of one, or a network.
    fn parse_any(given: &str) -> Option<Self> {
        let Ok(address) = given.parse::<IpAddr>() else {
            return Self::parse(given);
        };
        let (family, address) = split(address);
        Some(Self::new(family, address, family.bits()))
    }

    fn host_bits(family: Family, prefix: u32) -> u128 {
        let hosts = family.bits().saturating_sub(prefix);
        1_u128
            .checked_shl(hosts)
            .map_or(u128::MAX, |size| size.saturating_sub(1))
    }

    fn last(self) -> u128 {
        self.first | Self::host_bits(self.family, self.prefix)
    }

    fn contains(self, other: Self) -> bool {
        self.family == other.family
            && self.prefix <= other.prefix
            && Self::new(self.family, other.first, self.prefix).first == self.first
    }
}

/// An address and its family, an embedded IPv4 address being one.
fn split(address: IpAddr) -> (Family, u128) {
    let address = address.to_canonical();
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    (family, whole(address))
}

fn whole(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn network_of(value: &Value) -> Option<Network> {
    Network::parse(text(value)?)
}

/// The networks of a string, array, set or object, with what stands for each
/// in the result: itself, its index, itself, its key.
fn indexed(value: &Value) -> Option<Vec<(Value, &str)>> {
    match value {
        Value::String(network) => Some(vec![(value.clone(), network)]),
        Value::Array(array) => {
            let items = array.iter().enumerate();
            items
                .map(|(index, item)| Some((index.into(), matched(item)?)))
                .collect()
        }
        Value::Set(items) => items
            .iter_sorted()
            .map(|item| Some((item.clone(), matched(item)?)))
            .collect(),
        Value::Object(items) => items
            .iter_sorted()
            .map(|(key, item)| Some((key.clone(), matched(item)?)))
            .collect(),
        _ => Some(Vec::new()),
    }
}

/// A network by itself, or in front of whatever else an array holds.
fn matched(item: &Value) -> Option<&str> {
    match item {
        Value::Array(array) => text(array.first()?),
        _ => text(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json_str(text).unwrap()
    }

    #[test]
    fn networks_contain_and_meet_as_in_go() {
        // Network, other, whether it contains and whether it meets the other.
        let cases = [
            ("10.0.0.0/8", "10.1.0.0/16", Some(true), Some(true)),
            ("10.1.0.0/16", "10.0.0.0/8", Some(false), Some(true)),
            ("10.0.0.0/8", "11.0.0.0/8", Some(false), Some(false)),
            ("10.1.2.3/8", "10.0.0.1", Some(true), None),
            ("10.0.0.0/8", "::ffff:10.0.0.1", Some(true), None),
            ("::ffff:10.0.0.0/104", "10.0.0.1", Some(true), None),
            ("10.0.0.0/8", "::ffff:10.0.0.0/112", Some(true), Some(true)),
            ("::/0", "10.0.0.1", Some(false), None),
            ("::/80", "::/80", Some(true), Some(true)),
            ("::/0", "fd00::1", Some(true), None),
            ("0.0.0.0/0", "255.255.255.255", Some(true), None),
            ("10.0.0.0/33", "10.0.0.1", None, None),
            ("10.0.0.0/+8", "10.0.0.1", None, None),
            ("10.0.0.0", "10.0.0.0/8", None, None),
            ("010.0.0.0/8", "10.0.0.1", None, None),
            ("fe80::1%eth0/64", "fe80::1", None, None),
        ];
        for (network, other, contains, meets) in cases {
            let arguments = [network.into(), other.into()];
            let value = |expected: Option<bool>| expected.map(Value::from);
            assert_eq!(
                cidr_contains(&arguments),
                value(contains),
                "{network} {other}"
            );
            assert_eq!(
                cidr_intersects(&arguments),
                value(meets),
                "{network} {other}"
            );
        }
    }

    #[test]
    fn networks_merge_to_the_fewest_that_are_the_same() {
        let cases = [
            ("[]", Some("[]")),
            (r#"["10.0.0.7/24"]"#, Some(r#"["10.0.0.0/24"]"#)),
            (r#"["0.0.0.0/1", "128.0.0.0/1"]"#, Some(r#"["0.0.0.0/0"]"#)),
            (r#"["::/1", "8000::/1"]"#, Some(r#"["::/0"]"#)),
            (
                r#"["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]"#,
                Some(r#"["10.0.0.0/23", "10.0.2.0/24"]"#),
            ),
            (
                r#"["192.168.1.1", "fd00::/16"]"#,
                Some(r#"["192.168.1.1/24", "fd00::/16"]"#),
            ),
            (r#"["fd00::1"]"#, None),
            ("[1]", None),
            (r#""10.0.0.0/8""#, None),
        ];
        for (networks, expected) in cases {
            let expected =
                expected.map(|expected| set(json(expected).as_array().unwrap().iter().cloned()));
            assert_eq!(cidr_merge(&[json(networks)]), expected, "{networks}");
        }
    }

    #[test]
    fn what_would_take_too_much_is_undefined() {
        let expanded = cidr_expand(&["10.0.0.0/16".into()]).unwrap();
        assert_eq!(expanded.as_set().unwrap().len(), 65_536);
        for network in ["10.0.0.0/15", "::/0", "0.0.0.0/0"] {
            assert_eq!(cidr_expand(&[network.into()]), None);
        }
        let many = Value::from(vec![Value::from("10.0.0.0/8"); 2_000]);
        assert_eq!(cidr_contains_matches(&[many.clone(), many]), None);
    }
}
