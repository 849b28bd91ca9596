//! A reverse proxy in front of a server, as an administrator would run it.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::certificates::Certificates;
use super::installation::{User, program};
use super::ports::free_port;
use super::supervisor::{Supervisor, directory, give};
use super::{PATIENCE, Response, read_response, require, wait_for};

/// Runs it until the end of the input, and then ends it, by its id and with the signal that it obeys at once.
const SUPERVISOR: &str = r#"
home=$1 signal=$2
shift 2
export HOME="$home" XDG_CONFIG_HOME="$home" XDG_DATA_HOME="$home"
while read -r command; do
    "$@" >>"$home/log" 2>&1 </dev/null &
    proxy=$!
    echo "$proxy"
done
exec 2>/dev/null
[ -z "$proxy" ] || { kill -s "$signal" "$proxy"; wait "$proxy"; }
rm -rf "$home"
"#;

/// Which program it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Brand {
    Caddy,
    Nginx,
}

/// One that listens on `https://localhost`, with a certificate of its own; ended when it is dropped, or when the test process ends.
pub(crate) struct ReverseProxy {
    address: SocketAddrV4,
    home: PathBuf,
    authority: String,
    _supervisor: Supervisor,
}

impl Brand {
    pub(crate) const ALL: [Self; 2] = [Self::Caddy, Self::Nginx];

    /// Whether it is here. If not, says so as [`require`] does.
    #[must_use]
    pub(crate) fn require(self) -> bool {
        let name = self.name();
        require(&format!("{name}, which is not installed (tests/run installs it)"), program(name).is_some())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
        }
    }

    /// The example for administrators, to the last byte.
    pub(crate) fn example(self) -> String {
        let name = match self {
            Self::Caddy => "Caddyfile.example",
            Self::Nginx => "nginx.conf.example",
        };
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap()
    }

    /// What an administrator would exchange in the example, and nothing else: where the server is, the name and its certificate;
    /// and for a test the ports, which are neither privileged nor anybody else's.
    fn substitutions(self, server: SocketAddr, port: u16, home: &str) -> Vec<(&'static str, String)> {
        let server = ("127.0.0.1:8000", server.to_string());
        match self {
            Self::Caddy => {
                let site =
                    format!("\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {home}/certificate {home}/key\n");
                vec![server, ("\nholdfast.example.org {\n", site)]
            }
            Self::Nginx => vec![
                server,
                ("listen 80;", format!("listen 127.0.0.1:{};", free_port())),
                ("listen [::]:80;", String::new()),
                ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
                ("listen [::]:443 ssl http2;", String::new()),
                ("/etc/letsencrypt/live/holdfast.example.org/fullchain.pem", format!("{home}/certificate")),
                ("/etc/letsencrypt/live/holdfast.example.org/privkey.pem", format!("{home}/key")),
                ("server_name holdfast.example.org", "server_name localhost".into()),
            ],
        }
    }

    /// What is around a site's file where the distribution starts the program, and the command.
    fn surroundings(self, site: &str, home: &str) -> (String, Vec<String>, &'static str) {
        let program = program(self.name()).expect("a test asks require() first").display().to_string();
        match self {
            Self::Caddy => {
                let options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
                let command = [&program, "run", "--adapter", "caddyfile", "--config", &format!("{home}/site")];
                (format!("{options}{site}"), command.map(str::to_owned).into(), "QUIT")
            }
            Self::Nginx => {
                let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let places = places.map(|what| format!("{what}_temp_path {home}/{what};\n")).concat();
                let around = format!(
                    "daemon off;\npid {home}/pid;\nevents {{ worker_connections 256; }}\nhttp {{\naccess_log off;\ngzip on;\n{places}"
                );
                let command = [&program, "-e", &format!("{home}/log"), "-p", home, "-c", &format!("{home}/site")];
                (format!("{around}{site}}}\n"), command.map(str::to_owned).into(), "TERM")
            }
        }
    }
}

impl ReverseProxy {
    /// In front of this server, with the example and `changes` to it, each of a text that is there.
    #[track_caller]
    pub(crate) fn start(brand: Brand, server: SocketAddr, changes: &[(&str, &str)]) -> Self {
        let user = User::unprivileged();
        let home = directory(user);
        let at = home.to_str().unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
        let mut site = brand.example();
        let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned()));
        for (from, to) in changes.chain(brand.substitutions(server, address.port(), at)) {
            assert!(site.contains(from), "{from:?} is not in the example for {brand:?}");
            site = site.replace(from, &to);
        }
        let (site, command, signal) = brand.surroundings(&site, at);
        let certificates = Certificates::of(&["localhost"]);
        for (name, text) in [("site", &site), ("certificate", &certificates.certificate), ("key", &certificates.key)] {
            std::fs::write(home.join(name), text).unwrap();
            give(&home.join(name), user, 0o600);
        }
        let arguments: Vec<&str> = [at, signal].into_iter().chain(command.iter().map(String::as_str)).collect();
        let mut supervisor = Supervisor::start(SUPERVISOR, &arguments, user, None);
        let process = supervisor.ask("start");
        wait_for("the proxy to listen", || {
            // Nobody waits for it yet.
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let log = || std::fs::read_to_string(home.join("log")).unwrap_or_default();
            assert!(!status.contains("(zombie)"), "{brand:?} does not start:\n{}", log());
            TcpStream::connect(address).ok()
        });
        Self { address, home, authority: certificates.authority, _supervisor: supervisor }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// PEM of who has signed its certificate.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// What it has said so far, for whoever reads why a test failed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// Sends a request from this address of the loopback, on a connection of its own.
    pub(crate) fn send(
        &self,
        from: Ipv4Addr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> BufReader<StreamOwned<ClientConnection, TcpStream>> {
        let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&stream, &SocketAddrV4::new(from, 0)).unwrap();
        connect(&stream, &self.address).unwrap();
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(trusted).with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        let mut head = vec![format!("{method} {path} HTTP/1.1"), "Host: localhost".into()];
        head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if !body.is_empty() {
            head.push(format!("Content-Length: {}", body.len()));
        }
        let head = head.join("\r\n") + "\r\n\r\n";
        // It may refuse and close before it has read everything; what it said is read all the same.
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush()));
        BufReader::new(stream)
    }

    /// The same with the answer.
    #[track_caller]
    pub(crate) fn ask(
        &self,
        from: Ipv4Addr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let answer = read_response(&mut self.send(from, method, path, headers, body), method);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }
}
