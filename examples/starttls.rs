//! A conversation in lines that becomes TLS when the client asks for it, as in SMTP.
//!
//! Make a certificate as `tls_echo` says, run `cargo run --example starttls -- cert.pem key.pem`, and
//! in another terminal
//! `openssl s_client -starttls smtp -connect 127.0.0.1:9999 -servername localhost -CAfile cert.pem`.
//! Then type `EHLO me` and `QUIT`. Further arguments are another address, and another model, which is
//! `threads` or `processes`.

use std::env;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::tls::{ServerTls, Tls, TlsInfo};
use serveloop::layer::{Layered, Upgradable, Upgrade};
use serveloop::{Config, Peer, Result, Server};

const LINE_BYTES: usize = 512;

/// The protocol, before TLS and inside it.
struct Mail {
    /// What TLS begins with. `None` inside it.
    tls: Option<ServerTls>,
    is_asked: bool,
}

impl Mail {
    fn framed(tls: Option<ServerTls>) -> Framed<Self> {
        let is_asked = false;
        Framed::new(Lines::new(LINE_BYTES), Self { tls, is_asked })
    }
}

impl FrameProtocol for Mail {
    type Framing = Lines;

    fn connection_made(&mut self, client: &mut FrameTransport<'_, Lines>) -> Result {
        match self.tls {
            Some(_) => client.send(b"220 example.org\r"),
            None => Ok(()),
        }
    }

    fn frame_received(&mut self, line: &[u8], client: &mut FrameTransport<'_, Lines>) -> Result {
        let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        match (&*word.to_ascii_uppercase(), &self.tls) {
            (b"EHLO", Some(_)) => {
                client.send(b"250-example.org, in the clear\r")?;
                client.send(b"250 STARTTLS\r")
            }
            (b"EHLO", None) => client.send(b"250 example.org, in TLS\r"),
            (b"STARTTLS", Some(_)) => {
                self.is_asked = true;
                client.send(b"220 go ahead\r")
            }
            (b"QUIT", _) => {
                client.send(b"221 goodbye\r")?;
                client.transport().close();
                Ok(())
            }
            _ => client.send(b"500 unknown command\r"),
        }
    }
}

type Secure = Layered<Tls, fn(&Peer, &TlsInfo) -> Option<Framed<Mail>>, Framed<Mail>>;

impl Upgrade for Mail {
    type Next = Secure;
    // What a man in the middle sends behind STARTTLS would be read as if it had come in TLS.
    const MAY_FOLLOW_AT_ONCE: bool = false;

    fn take_next(&mut self) -> Option<Secure> {
        let tls = self.tls.take_if(|_| self.is_asked)?;
        Some(Layered::new(Tls::server(&tls), |_, _| {
            Some(Mail::framed(None))
        }))
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [chain, key, more @ ..] = &*arguments else {
        return Err("usage: starttls CERTIFICATE KEY [ADDRESS [MODEL]]".into());
    };
    let at = more.first().map_or("tcp://127.0.0.1:9999", String::as_str);

    let tls = ServerTls::builder()
        .certificate(chain.as_str(), key.as_str())
        .build()?;
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    let build = move |_: &Peer| Some(Upgradable::new(Mail::framed(Some(tls.clone()))));
    match more.get(1).map(String::as_str) {
        Some("threads") => server.serve_threading(build)?,
        Some("processes") => server.serve_forking(build)?,
        _ => server.serve_forever(build)?,
    };
    Ok(())
}
