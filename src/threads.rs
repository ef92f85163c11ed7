//! Work that may wait for a disk or a resolver, on a thread of its own.
//!
//! The runtime's own pool of threads panics where the kernel starts no further one, as in a pod whose limit of processes
//! the app has used up. A drain must outlive that.

use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Enough for a system call and the resolver, in bytes.
const STACK: usize = 256 * 1024;

/// Does what may wait for long.
///
/// # Errors
/// When the kernel starts no further thread.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (reply, answer) = oneshot::channel();
    let there = move || drop(reply.send(work()));
    thread::Builder::new().stack_size(STACK).spawn(there)?;
    answer.await.map_err(io::Error::other)
}

/// Does what takes no time as a rule; on the runtime's own thread where the kernel starts no further one.
pub async fn apart_if_possible<T: Send + 'static>(
    work: impl Fn() -> T + Send + Sync + 'static,
) -> T {
    let work = Arc::new(work);
    let there = work.clone();
    match apart(move || there()).await {
        Ok(done) => done,
        Err(_) => work(),
    }
}

/// Connects to a host, by its address or its name.
///
/// # Errors
/// When it has no address, or none of them can be connected to.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        return TcpStream::connect((address, port)).await;
    }
    let host = host.to_owned();
    let resolve = move || Ok::<_, io::Error>((host.as_str(), port).to_socket_addrs()?.collect());
    let addresses: Vec<_> = apart(resolve).await??;
    TcpStream::connect(&*addresses).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_what_it_gives_comes_back() {
        let here = thread::current().id();
        let there = apart(|| thread::current().id()).await.unwrap();
        assert_ne!(here, there);
        assert_ne!(apart_if_possible(|| thread::current().id()).await, here);
    }
}
