use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::*;

/// An app whose processes count nothing and answer by turns, each with its start time; what asks for `/hang` gets its
/// answer when it says more.
fn app(starts: &'static [u32]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut turns = starts.iter().cycle();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).unwrap();
            if head[..length].starts_with(b"GET /hang") {
                thread::spawn(move || {
                    stream.read_exact(&mut head[..1]).unwrap();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                });
                continue;
            }
            let start = turns.next().unwrap();
            let page = format!("process_start_time_seconds {start}\nm 0\n");
            let length = page.len();
            let kind = "text/plain; version=0.0.4";
            // The client may have gone.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
    });
    address
}

fn meter(address: SocketAddr, app_ports: impl IntoIterator<Item = u16>) -> Meter {
    let source = Source::parse(&format!("prometheus+http://{address}/metrics#m")).unwrap();
    Meter::new(
        source,
        ReadContext {
            client: crate::fetch::Client::default(),
            read_timeout: Duration::from_secs(30),
            quiet_period: Duration::from_millis(100),
            max_quiet: Duration::from_secs(1),
            max_inflight: 0.0,
            app_ports: app_ports.into_iter().collect(),
            auto: None,
        },
    )
}

fn hang(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /hang HTTP/1.1\r\n\r\n").unwrap();
    client
}

#[tokio::test]
async fn what_one_process_does_not_count_is_waited_for_for_max_quiet_at_most() {
    let address = app(&[10]);
    let meter = meter(address, []);
    assert_eq!(meter.read().await.unwrap(), 0.0);
    let _client = hang(address);
    let began = Instant::now();
    assert_eq!(meter.read().await.unwrap_err().kind(), "unconfirmed");
    while meter.read().await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn on_an_app_port_the_rule_for_unanswered_connections_does() {
    let address = app(&[10]);
    let _client = hang(address);
    let meter = meter(address, [address.port()]);
    assert_eq!(meter.read().await.unwrap(), 0.0);
}

#[tokio::test]
async fn where_several_processes_answer_a_client_that_waits_is_a_request() {
    let address = app(&[10, 20]);
    let meter = meter(address, [address.port()]);
    let mut client = hang(address);
    while meter.read().await.is_err() || !meter.lock_belief().processes.are_several() {
        sleep(Duration::from_millis(5)).await;
    }
    // Longer than max-quiet.
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(meter.read().await.unwrap(), 1.0);
    client.write_all(b"more").unwrap();
    while meter.read().await.unwrap_or(1.0) > 0.0 {
        sleep(Duration::from_millis(5)).await;
    }
}
