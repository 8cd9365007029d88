//! Three answers: at once, after the body, and later from another thread.
//!
//! Run `cargo run -p serveloop-http --example answers`, and in another terminal
//! `curl http://127.0.0.1:8080/`, `curl -d text http://127.0.0.1:8080/` and
//! `curl http://127.0.0.1:8080/slow`.

use std::thread;
use std::time::Duration;

use serveloop::{Config, Server};
use serveloop_http::{Http, Reply, Request, Response};

fn answer(request: &Request<'_>) -> Reply {
    match (request.method, request.path()) {
        ("GET" | "HEAD", "/") => Response::text("hello\n").into(),
        ("GET", "/slow") => {
            let (responder, reply) = Reply::promise(request);
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(1));
                responder.respond(Response::text("at last\n"));
            });
            reply
        }
        ("POST", "/") => Reply::collect(1_000_000, |body| {
            Response::text(format!("{} bytes\n", body.len()))
        }),
        (_, "/" | "/slow") => Response::status(405)
            .header("Allow", "GET, HEAD, POST")
            .into(),
        _ => Response::status(404).into(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind(&["tcp://127.0.0.1:8080".parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(Http::new(answer)))?;
    Ok(())
}
