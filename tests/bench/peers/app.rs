//! An app with one request in flight, until told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub struct App {
    pub address: SocketAddr,
    busy: Arc<AtomicUsize>,
}

pub fn start() -> App {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let busy = Arc::new(AtomicUsize::new(1));
    let shown = busy.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = format!("busy {}\n", shown.load(Ordering::SeqCst));
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}"
            );
        }
    });
    App { address, busy }
}

impl App {
    /// Ends the request after so long; says when that was.
    pub fn end_after(&self, time: Duration) -> JoinHandle<Instant> {
        let busy = self.busy.clone();
        thread::spawn(move || {
            thread::sleep(time);
            busy.store(0, Ordering::SeqCst);
            Instant::now()
        })
    }
}
