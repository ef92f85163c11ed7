//! An app in the process of a bench: it says how many requests are in flight, and has none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Can be cloned, to change the number elsewhere.
#[derive(Clone)]
pub struct App {
    pub address: SocketAddr,
    inside: Arc<AtomicUsize>,
}

impl App {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(AtomicUsize::new(0));
        let shown = inside.clone();
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
        Self { address, inside }
    }

    /// From now on so many requests are in flight.
    pub fn set(&self, inside: usize) {
        self.inside.store(inside, Ordering::SeqCst);
    }
}
