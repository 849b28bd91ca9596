//! The proxies whose word is taken for where a request comes from.

use std::net::IpAddr;
use std::str::FromStr;

/// Addresses and networks, and whether those on Unix sockets are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<Network>,
    has_local: bool,
}

/// What stands for whoever connects by a Unix socket, which has no address.
const LOCAL: &str = "unix";

/// The addresses that begin with the same bits as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Proxies {
    /// Whether this is a proxy's address; an IPv4 address within IPv6 is its IPv4 self.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether whoever connects by a Unix socket is one.
    pub fn contain_local(&self) -> bool {
        self.has_local
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.has_local
    }
}

impl FromStr for Proxies {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut proxies = Self::default();
        for part in text.split(',').map(str::trim) {
            if part == LOCAL {
                proxies.has_local = true;
            } else {
                proxies.networks.push(part.parse()?);
            }
        }
        Ok(proxies)
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        first_bits(self.address, self.bits) == first_bits(address, self.bits)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (written, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                (address, Some(bits.parse::<u32>().map_err(drop)?))
            }
            Some(_) => return Err(()),
            None => (text, None),
        };
        let written: IpAddr = written.parse().map_err(drop)?;
        let address = written.to_canonical();
        // An IPv4 network within IPv6 has 96 bits more before it.
        let before = bits_of(written) - bits_of(address);
        let bits = bits.unwrap_or(bits_of(written)).checked_sub(before).ok_or(())?;
        // What is not zero behind a network's bits is rather a slip than meant, and so is a network of everybody.
        let is_whole = first_bits(address, bits) == Some((address.is_ipv4(), value(address)));
        if bits > 0 && is_whole { Ok(Self { address, bits }) } else { Err(()) }
    }
}

/// The protocol and what is left of an address when the bits behind the first so many are zero; `None` if it has fewer.
fn first_bits(address: IpAddr, bits: u32) -> Option<(bool, u128)> {
    let behind = bits_of(address).checked_sub(bits)?;
    let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
    Some((address.is_ipv4(), value(address) & mask))
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_itself_and_a_network_is_all_of_it() {
        let proxies: Proxies = "127.0.0.1, 10.0.0.0/8,::1 , 2001:db8:1::/48, ::ffff:192.0.2.0/120".parse().unwrap();
        for inside in
            ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.0", "10.255.1.2", "::1", "2001:db8:1:ffff::7", "192.0.2.9"]
        {
            assert!(proxies.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["127.0.0.2", "11.0.0.0", "9.255.255.255", "::2", "2001:db8:2::1", "192.0.3.1", "a00::"] {
            assert!(!proxies.contain(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Proxies::default().contain("127.0.0.1".parse().unwrap()) && Proxies::default().is_empty());
    }

    #[test]
    fn whoever_comes_by_a_unix_socket_is_named_by_a_word_and_by_no_address() {
        let proxies: Proxies = "unix".parse().unwrap();
        assert!(proxies.contain_local() && !proxies.is_empty() && !proxies.contain("127.0.0.1".parse().unwrap()));
        let proxies: Proxies = "127.0.0.1, unix".parse().unwrap();
        assert!(proxies.contain_local() && proxies.contain("127.0.0.1".parse().unwrap()));
        assert!(!"127.0.0.1".parse::<Proxies>().unwrap().contain_local());
    }

    #[test]
    fn what_names_no_proxies_or_everybody_is_refused() {
        for wrong in [
            "*",
            "localhost",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "0.0.0.0/0",
            "::/0",
            "::ffff:0.0.0.0/96",
            "unix:/run/nginx",
            "10.0.0.1,",
            ",",
            "10.0.0.1;10.0.0.2",
            "127.0.0.1:80",
            "[::1]",
            "010.0.0.1",
            "10.1",
        ] {
            assert_eq!(wrong.parse::<Proxies>(), Err(()), "{wrong}");
        }
    }
}
