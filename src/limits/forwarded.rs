//! Where a request comes from when proxies pass it on: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Proxies;

/// The address of the client behind the proxies that are trusted: pure, and never more than what they vouch for.
///
/// `peer` is at the other end of the connection; only if it is trusted, the headers are read, each with its lines in their
/// order. Every proxy appends whom it was asked by, so they are read from the right, over proxies that are trusted, to the
/// first address that is not: what stands left of it is the client's own invention. At something that cannot be read, is
/// `unknown` or hidden, the proxy that wrote it is all that is known, and counts.
///
/// A proxy that keeps one of the two headers passes a forged other one on untouched, and nothing here tells which one it keeps.
/// So where both are sent they have to name the same address; else the peer's counts.
pub fn client_address(peer: IpAddr, forwarded: &[&str], x_forwarded_for: &[&str], trusted: &Proxies) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.contain(peer) { address_behind(peer, forwarded, x_forwarded_for, trusted) } else { peer }
}

/// The same of a peer that is trusted, whatever its address.
pub fn address_behind(peer: IpAddr, forwarded: &[&str], x_forwarded_for: &[&str], trusted: &Proxies) -> IpAddr {
    let by_standard = || first_stranger(peer, forwarded.iter().rev().flat_map(|line| elements(line)), trusted);
    let by_custom = || {
        let hops = x_forwarded_for.iter().rev().flat_map(|line| line.rsplit(',').map(bare_node));
        first_stranger(peer, hops, trusted)
    };
    match (forwarded, x_forwarded_for) {
        ([], []) => peer,
        (_, []) => by_standard(),
        ([], _) => by_custom(),
        _ => {
            let address = by_standard();
            if by_custom() == address { address } else { peer }
        }
    }
}

/// Walks over trusted hops, from the one nearest to the peer on; `None` is one that cannot be read.
fn first_stranger(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &Proxies) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        nearest = hop;
        if !trusted.contain(hop) {
            break;
        }
    }
    nearest
}

/// The nodes of one line of `Forwarded`, the last one first. Of a line that is malformed nothing is known: a quote that a client
/// has left open would hide what its proxy has appended.
fn elements(line: &str) -> Vec<Option<IpAddr>> {
    let mut rest = line;
    let mut nodes = Vec::new();
    loop {
        match element(&mut rest) {
            Ok(node) => nodes.push(node),
            Err(Malformed) => return vec![None],
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    nodes.reverse();
    nodes
}

struct Malformed;

/// Reads one element, `for=192.0.2.1;proto=https`, up to its comma or the line's end.
fn element(rest: &mut &str) -> Result<Option<IpAddr>, Malformed> {
    let mut node = None;
    loop {
        *rest = rest.trim_start_matches(BLANKS);
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            let name = token(rest)?;
            *rest = rest.strip_prefix('=').ok_or(Malformed)?;
            let value = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted, rest)?,
                None => token(rest)?.to_owned(),
            };
            // Each parameter at most once (RFC 7239 §4); of the others nobody wants anything.
            if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
                return Err(Malformed);
            }
            *rest = rest.trim_start_matches(BLANKS);
        }
        match rest.strip_prefix(';') {
            Some(next) => *rest = next,
            None if rest.is_empty() || rest.starts_with(',') => break,
            None => return Err(Malformed),
        }
    }
    Ok(node.as_deref().and_then(self::node))
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Takes a token (RFC 9110 §5.6.2) of at least one character.
fn token<'a>(rest: &mut &'a str) -> Result<&'a str, Malformed> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let (token, left) = rest.split_at(end);
    *rest = left;
    if token.is_empty() { Err(Malformed) } else { Ok(token) }
}

/// Takes the rest of a quoted string (RFC 9110 §5.6.4), after its first quote.
fn unquote<'a>(quoted: &'a str, rest: &mut &'a str) -> Result<String, Malformed> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                *rest = &quoted[at + 1..];
                return Ok(text);
            }
            '\\' => text.push(characters.next().ok_or(Malformed)?.1),
            character => text.push(character),
        }
    }
    Err(Malformed)
}

/// What `Forwarded` calls a node: `192.0.2.1`, `[2001:db8::1]`, either with a port. `unknown` and hidden ones are no address.
fn node(text: &str) -> Option<IpAddr> {
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), port)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        (IpAddr::V4(text[..end].parse::<Ipv4Addr>().ok()?), &text[end..])
    };
    let is_port = |port: &str| {
        let hidden = port.strip_prefix('_').filter(|name| !name.is_empty());
        let is_hidden = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        hidden.is_some_and(is_hidden) || ((1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()))
    };
    let is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_sound.then(|| address.to_canonical())
}

/// What stands between two commas of `X-Forwarded-For`: the same, or an IPv6 address as it is.
fn bare_node(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches(BLANKS);
    node(text).or_else(|| text.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn trusted() -> Proxies {
        "10.0.0.0/8, 2001:db8:ffff::/48".parse().expect("networks")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The client behind `10.0.0.1`.
    #[track_caller]
    fn behind(forwarded: &[&str], x_forwarded_for: &[&str], expected: &str) {
        let found = client_address(ip(PROXY), forwarded, x_forwarded_for, &trusted());
        assert_eq!(found, ip(expected), "{forwarded:?} {x_forwarded_for:?}");
    }

    #[test]
    fn without_a_proxy_that_is_trusted_the_peer_counts() {
        for peer in ["192.0.2.1", "::ffff:192.0.2.1", "11.0.0.1", "2001:db8::1"] {
            let found = client_address(ip(peer), &["for=10.0.0.2"], &["198.51.100.7"], &trusted());
            assert_eq!(found, ip(peer).to_canonical());
            assert_eq!(client_address(ip(PROXY), &["for=1.2.3.4"], &["1.2.3.4"], &Proxies::default()), ip(PROXY));
        }
        behind(&[], &[], PROXY);
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_to_the_first_stranger() {
        for (lines, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
            (&["6.6.6.6,198.51.100.7 ,\t10.0.0.2 , 10.9.9.9"], "198.51.100.7"),
            (&["6.6.6.6", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            (&["198.51.100.7", "10.0.0.2", "10.0.0.3"], "198.51.100.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]:443, 2001:db8:ffff::1"], "2001:db8::7"),
            (&["198.51.100.7:51234"], "198.51.100.7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["6.6.6.6, ::ffff:10.0.0.7"], "6.6.6.6"),
            // Nobody but proxies: the farthest of them.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // What cannot be read hides what stands left of it.
            (&["198.51.100.7, unknown"], PROXY),
            (&["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
            (&["198.51.100.7,"], PROXY),
            (&["198.51.100.7", ""], PROXY),
            (&["", "198.51.100.7"], "198.51.100.7"),
            (&["\"198.51.100.7\""], PROXY),
            (&["198.51.100.007"], PROXY),
            (&["198.51.100.7:"], PROXY),
            (&["198.51.100.7:123456"], PROXY),
            (&["fe80::1%eth0"], PROXY),
            (&["[2001:db8::7"], PROXY),
            (&["[198.51.100.7]"], PROXY),
            (&["\u{fffd}198.51.100.7"], PROXY),
        ] {
            behind(&[], lines, expected);
        }
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        for (lines, expected) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"198.51.100.7:4711\";proto=https;by=203.0.113.43"], "198.51.100.7"),
            (&["for=6.6.6.6;proto=http , proto=https ;FOR=198.51.100.7"], "198.51.100.7"),
            (&["for=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=\"[2001:db8:cafe::17]\", for=\"[2001:db8:ffff::2]:_a.b-c\""], "2001:db8:cafe::17"),
            (&["for=6.6.6.6", "for=198.51.100.7, for=10.0.0.2"], "198.51.100.7"),
            (&["for=\"198.51\\.100.7\""], "198.51.100.7"),
            (&["for=198.51.100.7;host=\"a, b;for=6.6.6.6\""], "198.51.100.7"),
            (&["for=198.51.100.7;;proto=http"], "198.51.100.7"),
            (&["for=\"[::ffff:198.51.100.7]\""], "198.51.100.7"),
            // Nothing, or nobody that can be told.
            (&["for=198.51.100.7, for=unknown"], PROXY),
            (&["for=198.51.100.7, for=_hidden"], PROXY),
            (&["for=198.51.100.7, for=\"_hidden:1\", for=10.0.0.2"], "10.0.0.2"),
            (&["for=198.51.100.7, proto=https"], PROXY),
            (&["for=198.51.100.7,"], PROXY),
            (&[""], PROXY),
            // Malformed, and so perhaps a forger's.
            (&["for=6.6.6.6;by=\", for=198.51.100.7"], PROXY),
            (&["for=6.6.6.6;by=\"", "for=198.51.100.7, for=10.0.0.2"], "198.51.100.7"),
            (&["for=6.6.6.6;by=\"", "for=10.0.0.2"], "10.0.0.2"),
            (&["for=6.6.6.6;for=198.51.100.7"], PROXY),
            (&["for=2001:db8::1"], PROXY),
            (&["for=\"2001:db8::1\""], PROXY),
            (&["for=198.51.100.7:80"], PROXY),
            (&["for=\"198.51.100.7:http\""], PROXY),
            (&["for =198.51.100.7"], PROXY),
            (&["for= 198.51.100.7"], PROXY),
            (&["for"], PROXY),
            (&["for="], PROXY),
            (&["=198.51.100.7"], PROXY),
            (&["for=\"198.51.100.7\"x"], PROXY),
            (&["for=\"198.51.100.7\\"], PROXY),
            (&["198.51.100.7"], PROXY),
        ] {
            behind(lines, &[], expected);
        }
    }

    #[test]
    fn a_header_that_a_proxy_passes_on_untouched_forges_nothing() {
        behind(&["for=6.6.6.6"], &["198.51.100.7"], PROXY);
        behind(&["for=198.51.100.7"], &["6.6.6.6"], PROXY);
        behind(&["for=\""], &["198.51.100.7"], PROXY);
        behind(&["for=198.51.100.7;proto=https"], &["6.6.6.6, 198.51.100.7"], "198.51.100.7");
    }
}
