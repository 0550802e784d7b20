//! IP addresses that a name may lead to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which of the addresses that a name resolves to are dialled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AddressCheck {
    /// All.
    #[default]
    Any,
    /// All but those that mean this machine, this link, everybody or several: a name that leads
    /// there is most likely an attack on what listens there.
    Ordinary,
    /// Those in one of these networks.
    Within(Vec<Network>),
}

/// A network in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// It cannot be read.
    #[error("is not an IP address, nor a network such as 10.0.0.0/8")]
    Syntax,
    /// It names an address inside the network.
    #[error("has bits beyond its length")]
    HostBits,
}

impl AddressCheck {
    /// Whether an address may be dialled.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ordinary => !is_special(address),
            Self::Within(networks) => {
                let address = address.to_canonical();
                networks.iter().any(|network| network.contains(address))
            }
        }
    }
}

impl Network {
    /// Whether an address, which is no IPv4 address in IPv6 form, is in it.
    fn contains(&self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (wide(own), wide(other), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own), u128::from(other), 128),
            _ => return false,
        };
        let rest = u32::from(width - self.bits.min(width));
        (own ^ other).checked_shr(rest).unwrap_or(0) == 0
    }
}

fn wide(address: Ipv4Addr) -> u128 {
    u128::from(u32::from(address))
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork::Syntax)?;
        // Nothing would ever be in such a network.
        if address.to_canonical() != address {
            return Err(BadNetwork::Syntax);
        }
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                let bits = digits.parse().ok().filter(|bits| *bits <= width);
                bits.ok_or(BadNetwork::Syntax)?
            }
            Some(_) => return Err(BadNetwork::Syntax),
        };
        let number = match address {
            IpAddr::V4(address) => wide(address),
            IpAddr::V6(address) => u128::from(address),
        };
        let rest = u32::from(width - bits);
        let kept = number.checked_shr(rest).unwrap_or(0);
        if kept.checked_shl(rest).unwrap_or(0) != number {
            return Err(BadNetwork::HostBits);
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

/// Whether it is loopback, link-local (where clouds have their metadata), unspecified, multicast or
/// broadcast, in whichever form.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_special_v4(address),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || embedded(address).is_some_and(is_special_v4)
        }
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        // All of 0.0.0.0/8 means this network (RFC 791 section 3.2).
        || address.octets().starts_with(&[0])
        || address.is_multicast()
        || address.is_broadcast()
}

/// The IPv4 address to which a translator takes this (RFC 6052 section 2.1), and the one in the
/// deprecated form without a prefix.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let translated = u128::from(address) >> 32;
    let is_embedded = translated == 0 || translated == 0x0064_ff9b << 64;
    let [.., a, b, c, d] = address.octets();
    is_embedded.then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_not_lead_to_this_machine_or_this_link_unless_that_is_said() {
        for special in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::169.254.169.254",
        ] {
            let address: IpAddr = special.parse().unwrap();
            assert!(!AddressCheck::Ordinary.allows(address), "{special}");
            assert!(AddressCheck::Any.allows(address), "{special}");
            let within = AddressCheck::Within(vec!["10.0.0.0/8".parse().unwrap()]);
            assert!(!within.allows(address), "{special}");
        }
        for ordinary in ["10.1.2.3", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            assert!(AddressCheck::Ordinary.allows(ordinary.parse().unwrap()));
        }
    }

    #[test]
    fn a_network_holds_its_addresses_in_either_form() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "::ffff:1.2.3.4", false),
            ("fd00::/9", "fd7f::1", true),
            ("fd00::/9", "fd80::1", false),
        ] {
            let check = AddressCheck::Within(vec![network.parse().unwrap()]);
            let found = check.allows(address.parse().unwrap());
            assert_eq!(found, expected, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, error) in [
            ("", BadNetwork::Syntax),
            ("localhost", BadNetwork::Syntax),
            ("10.0.0.0/33", BadNetwork::Syntax),
            ("10.0.0.0/+8", BadNetwork::Syntax),
            ("10.0.0.0/", BadNetwork::Syntax),
            ("10.0.0", BadNetwork::Syntax),
            ("::ffff:10.0.0.0/104", BadNetwork::Syntax),
            ("10.0.0.1/8", BadNetwork::HostBits),
            ("fd00::1/8", BadNetwork::HostBits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
