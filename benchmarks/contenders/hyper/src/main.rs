// APNs requests by hyper's client over hyper-rustls with ring, set as a2 sets them, on one thread. `../driven.py` has the protocol.
use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{connect::HttpConnector, Client};
use hyper_util::rt::TokioExecutor;

type Error = Box<dyn std::error::Error>;

struct Apns {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    job: serde_json::Value,
    payload: Bytes,
    next: Cell<u64>,
}

impl Apns {
    fn text(&self, key: &str) -> &str {
        self.job[key].as_str().unwrap()
    }

    async fn push(&self, number: u64) -> Result<(), Error> {
        let request = Request::post(format!("{}/3/device/{:064x}", self.text("url"), number))
            .header("authorization", self.text("authorization"))
            .header("content-length", self.payload.len())
            .header("apns-topic", self.text("topic"))
            .header("apns-push-type", "alert")
            .header("apns-priority", "10")
            .header("apns-expiration", "1900000000")
            .header("apns-id", format!("00000000-0000-5000-8000-{:012x}", number))
            .body(Full::new(self.payload.clone()))?;
        let response = self.client.request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if status != 200 {
            return Err(format!("the gateway answered {status}").into());
        }
        Ok(())
    }

    async fn run(&self, count: u64) -> Result<(), Error> {
        let end = self.next.get() + count;
        let workers = (0..self.job["atOnce"].as_u64().unwrap()).map(|_| async move {
            while self.next.get() < end {
                let number = self.next.replace(self.next.get() + 1);
                self.push(number).await?;
            }
            Ok::<(), Error>(())
        });
        try_join_all(workers).await?;
        Ok(())
    }
}

fn cpu() -> f64 {
    // SAFETY: `getrusage` fills the whole structure.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn main() -> Result<(), Error> {
    let mut lines = io::stdin().lock().lines();
    let job: serde_json::Value = serde_json::from_str(&lines.next().unwrap()?)?;
    let mut roots = rustls::RootCertStore::empty();
    let file = std::fs::File::open(job["ca"].as_str().unwrap())?;
    for certificate in rustls_pemfile::certs(&mut io::BufReader::new(file)) {
        roots.add(certificate?)?;
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().build();
    let client = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(600))
        .http2_only(true)
        .build(connector);
    let payload = Bytes::from(job["payload"].as_str().unwrap().to_owned());
    let requests = job["requests"].as_u64().unwrap();
    let warm_up = job["warmUp"].as_u64().unwrap();
    let apns = Apns { client, job, payload, next: Cell::new(1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // One request opens the connection that all others share.
    runtime.block_on(async {
        apns.push(0).await?;
        apns.run(warm_up).await
    })?;
    println!("ready");
    io::stdout().flush()?;
    for line in lines {
        line?;
        let (before, begun) = (cpu(), Instant::now());
        runtime.block_on(apns.run(requests))?;
        let (cpu, wall) = (cpu() - before, begun.elapsed().as_secs_f64());
        println!("{}", serde_json::json!({"requests": requests, "cpu": cpu, "wall": wall}));
        io::stdout().flush()?;
    }
    Ok(())
}
