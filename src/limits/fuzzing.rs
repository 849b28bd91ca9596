//! What holds of every `Forwarded` and `X-Forwarded-For`, whoever makes them up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::forwarded::client_address;
use crate::config::Proxies;

/// Who are trusted, and [`is_trusted`] says the same.
const TRUSTED: &str = "10.0.0.0/8, 2001:db8:ffff::/48";
/// Whom none of them trusts.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
/// Who may be at the other end of the connection.
const PEERS: [&str; 6] =
    ["10.0.0.1", "::ffff:10.9.9.9", "2001:db8:ffff::1", "198.51.100.7", "::ffff:11.0.0.1", "2001:db8::1"];

/// A request comes from its peer or from an address that a trusted hop wrote, with nobody between them who is not trusted or
/// cannot be read; headers that disagree, and those of a peer that is not trusted, say nothing.
///
/// The lines are headers: of `Forwarded` if they begin with `F`, else of `X-Forwarded-For`, each after its first letter.
pub fn forwarded(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let of = |is_standard: bool| -> Vec<&str> {
        let lines = text.lines().filter(move |line| line.starts_with('F') == is_standard);
        lines.map(|line| line.get(1..).unwrap_or_default()).collect()
    };
    let (standard, custom) = (of(true), of(false));
    let trusted: Proxies = TRUSTED.parse().expect("networks");
    for peer in PEERS {
        let peer: IpAddr = peer.parse().expect("an address");
        let find = |standard: &[&str], custom: &[&str]| client_address(peer, standard, custom, &trusted);
        let (peer, found) = (peer.to_canonical(), find(&standard, &custom));
        assert_eq!(client_address(peer, &standard, &custom, &Proxies::default()), peer);
        if !is_trusted(peer) {
            assert_eq!(found, peer, "{peer} is not trusted");
            continue;
        }
        let by_standard = origin(peer, standard.iter().flat_map(|line| elements(line)).collect());
        let by_custom = origin(peer, custom.iter().flat_map(|line| line.split(',')).map(bare).collect());
        assert_eq!(find(&standard, &[]), by_standard, "{standard:?}");
        assert_eq!(find(&[], &custom), by_custom, "{custom:?}");
        let expected = match (standard.is_empty(), custom.is_empty()) {
            (false, false) if by_standard != by_custom => peer,
            (false, _) => by_standard,
            (true, _) => by_custom,
        };
        assert_eq!(found, expected, "{standard:?} {custom:?}");
        nothing_is_forged(peer, &standard, &custom, &find);
    }
}

/// Whatever a client sends ahead, what the proxies append to it decides.
fn nothing_is_forged(peer: IpAddr, standard: &[&str], custom: &[&str], find: &dyn Fn(&[&str], &[&str]) -> IpAddr) {
    let (appended_standard, appended_custom) =
        (format!("for={STRANGER}, for=10.0.0.2"), format!("{STRANGER}, 10.0.0.2"));
    let all_standard = [standard, &[&appended_standard]].concat();
    let all_custom = [custom, &[&appended_custom]].concat();
    assert_eq!(find(&all_standard, &[]), STRANGER);
    assert_eq!(find(&[], &all_custom), STRANGER);
    assert_eq!(find(&all_standard, &all_custom), STRANGER);
    // In one line with it, too; of one that is malformed nothing is known.
    assert_eq!(find(&[], &[&all_custom.join(", ")]), STRANGER);
    let joined = find(&[&all_standard.join(", ")], &[]);
    assert!(joined == STRANGER || joined == peer, "{joined}");
    // A proxy that keeps one of the headers and passes on the other.
    for both in [find(&all_standard, custom), find(standard, &all_custom)] {
        assert!(both == STRANGER || both == peer, "{both}");
    }
}

/// The leftmost hop that can be read and has nobody but trusted ones between it and the connection.
fn origin(peer: IpAddr, mut hops: Vec<Option<IpAddr>>) -> IpAddr {
    hops.push(Some(peer));
    let from = hops.iter().rposition(|hop| !hop.is_some_and(is_trusted)).unwrap_or(0);
    hops[from].or_else(|| hops[from + 1]).expect("the peer is trusted")
}

fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 0xffff],
    }
}

/// The nodes of a line of `Forwarded` from left to right: it is cut into parts first, which are looked at then.
fn elements(line: &str) -> Vec<Option<IpAddr>> {
    let mut nodes = Vec::new();
    for element in cut(line, ',') {
        let mut named = Vec::new();
        for pair in
            cut(element, ';').into_iter().map(|pair| pair.trim_matches([' ', '\t'])).filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=').map(|(name, value)| (name, value_of(value))) {
                Some((name, Some(value))) if is_token(name) => {
                    named.extend(name.eq_ignore_ascii_case("for").then_some(value));
                }
                _ => return vec![None],
            }
        }
        match &named[..] {
            [] => nodes.push(None),
            [node] => nodes.push(node_of(node)),
            _ => return vec![None],
        }
    }
    nodes
}

/// The parts between the separators that stand outside of quotes.
fn cut(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if character == separator && !is_quoted => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// A token as it is, or what stands in quotes.
fn value_of(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else { return is_token(text).then(|| text.to_owned()) };
    let (mut value, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(value),
            '\\' => value.push(rest.next()?),
            character => value.push(character),
        }
    }
}

fn is_token(text: &str) -> bool {
    let is_delimiter = |byte| b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !is_delimiter(byte))
}

/// An address with or without a port, one of IPv6 in brackets.
fn node_of(text: &str) -> Option<IpAddr> {
    let address = |text: &str| {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical()),
            None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    };
    let is_port = |port: &str| match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c))
        }
        None => port.len() <= 5 && port.parse::<u32>().is_ok() && !port.starts_with('+'),
    };
    address(text)
        .or_else(|| text.rsplit_once(':').filter(|(_, port)| is_port(port)).and_then(|(node, _)| address(node)))
}

/// The same in `X-Forwarded-For`, where an address of IPv6 needs no brackets.
fn bare(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical()).or_else(|| node_of(text))
}
