//! The table of real sockets.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;

const QUIET: Duration = Duration::from_millis(300);
const MAX_QUIET: Duration = Duration::from_secs(1);

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

async fn connections(table: &Table) -> Vec<Connection> {
    let mut seen = Vec::new();
    table.each(|c| seen.push(c)).await.unwrap();
    seen
}

/// The one connection of the table, once it is as wanted.
async fn once(table: &Table, wanted: impl Fn(&Connection) -> bool) -> Connection {
    for _ in 0..2000 {
        let seen = connections(table).await;
        if let [one] = &seen[..]
            && wanted(one)
        {
            return one.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never as wanted: {:?}", connections(table).await);
}

#[tokio::test]
async fn a_request_is_busy_from_its_first_byte_until_its_answer_has_arrived() {
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = Table::new([port]);
        let mut client = match address {
            "[::]:0" => TcpStream::connect(("127.0.0.1", port)).unwrap(),
            _ => TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
        };
        let (mut app, _) = listener.accept().unwrap();
        let idle = once(&table, |c| c.state == State::Established).await;
        assert_eq!(idle.peer, {
            let own = client.local_addr().unwrap();
            SocketAddr::new(own.ip().to_canonical(), own.port())
        });
        assert!(!idle.unanswered() && !idle.waits(MAX_QUIET));
        assert!(!idle.is_busy(QUIET, MAX_QUIET), "it never brought a byte");

        for n in 1..=3 {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            once(&table, |c| c.unread == 18 && c.waits(MAX_QUIET)).await;
            assert_eq!(app.read(&mut [0; 100]).unwrap(), 18);
            let heard = once(&table, |c| c.unread == 0 && c.last_received > 400).await;
            assert!(
                heard.waits(MAX_QUIET) && heard.is_busy(QUIET, MAX_QUIET),
                "{heard:?}"
            );
            app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert_eq!(client.read(&mut [0; 100]).unwrap(), 27);
            let answered = once(&table, |c| !c.waits(MAX_QUIET)).await;
            assert!(answered.answered() > 0);
            assert_eq!(answered.segments, n);
            once(&table, |c| !c.is_busy(QUIET, MAX_QUIET)).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_still_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let table = Table::new([listener.local_addr().unwrap().port()]);
    let (mut client, mut app) = pair(&listener);
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    app.read_to_end(&mut all).unwrap();
    let heard = once(&table, |c| c.state == State::CloseWait).await;
    assert_eq!((heard.brought(), heard.answered()), (7, 0));
    assert!(heard.waits(MAX_QUIET));
    app.write_all(b"answer").unwrap();
    once(&table, |c| c.answered() == 6 && !c.waits(MAX_QUIET)).await;
}

#[tokio::test]
async fn a_client_that_only_connects_and_leaves_never_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let table = Table::new([listener.local_addr().unwrap().port()]);
    let (client, _app) = pair(&listener);
    drop(client);
    let left = once(&table, |c| c.state == State::CloseWait).await;
    assert_eq!(left.brought(), 0);
    assert!(!left.waits(MAX_QUIET) && !left.is_busy(QUIET, MAX_QUIET));
}

#[tokio::test]
async fn only_the_ports_asked_for_are_handed_out() {
    let listeners: Vec<_> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let ports: Vec<u16> = (listeners.iter())
        .map(|l| l.local_addr().unwrap().port())
        .collect();
    let _pairs: Vec<_> = listeners.iter().map(pair).collect();
    for wanted in 1..=4 {
        let table = Table::new(ports[..wanted].iter().copied());
        let mut seen: Vec<u16> = connections(&table).await.iter().map(|c| c.port).collect();
        seen.sort_unstable();
        let mut expected = ports[..wanted].to_vec();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        let listeners = table.each(drop).await.unwrap();
        assert!(!listeners.is_empty(), "something listens");
    }
    drop(listeners);
    assert_eq!(Table::new(ports).each(drop).await.unwrap(), []);
}

#[tokio::test]
async fn ours_are_left_out_of_the_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let table = Table::new([listener.local_addr().unwrap().port()]);
    let pairs: Vec<_> = (0..3).map(|_| pair(&listener)).collect();
    let own = pairs[0].0.local_addr().unwrap();
    let count = table.count(Rule::Open, |peer| peer == own).await.unwrap();
    assert_eq!(count, (2, true));
}

#[tokio::test]
#[allow(clippy::disallowed_methods)] // Nothing else runs meanwhile.
async fn a_close_notice_tells_whether_a_client_waited() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut notices = CloseNotices::listen().unwrap();
    // What happens, and whether a client waited when the app closed.
    type Exchange = fn(&mut TcpStream, &mut TcpStream);
    let exchanges: [(&str, Exchange, bool); 5] = [
        ("it never asked", |_, _| {}, false),
        (
            "it was answered",
            |client, app| {
                client.write_all(b"request").unwrap();
                assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
                std::thread::sleep(Duration::from_millis(20));
                app.write_all(b"answer").unwrap();
                assert_eq!(client.read(&mut [0; 100]).unwrap(), 6);
            },
            false,
        ),
        (
            "its request was never read",
            |client, _| client.write_all(b"request").unwrap(),
            true,
        ),
        (
            "its request was read and not answered",
            |client, app| {
                client.write_all(b"request").unwrap();
                assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
            },
            true,
        ),
        (
            "its second request was not answered",
            |client, app| {
                client.write_all(b"request").unwrap();
                assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
                app.write_all(b"answer").unwrap();
                assert_eq!(client.read(&mut [0; 100]).unwrap(), 6);
                std::thread::sleep(Duration::from_millis(50));
                client.write_all(b"request").unwrap();
                assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
            },
            true,
        ),
    ];
    for (name, exchange, waited) in exchanges {
        let (mut client, mut app) = pair(&listener);
        exchange(&mut client, &mut app);
        drop(app);
        let _ = client.read(&mut [0; 100]);
        drop(client);
        let mut closed = None;
        while closed.is_none() {
            let next = notices.next(|notice| match notice {
                CloseNotice::Closed(c) if c.port == port => closed = Some(c),
                _ => {}
            });
            next.await.unwrap();
        }
        let closed = closed.unwrap();
        assert_eq!(closed.waits(MAX_QUIET), waited, "{name}: {closed:?}");
    }
}

#[tokio::test]
async fn a_request_of_the_tick_of_the_answer_before_it_waits_for_as_long_as_it_takes() {
    if !procfs::tells_replies() {
        return; // Then it is taken to wait for max-quiet.
    }
    for asks_again in [false, true] {
        // A tick may be over between the two.
        let connection = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let table = Table::new([listener.local_addr().unwrap().port()]);
            let (mut client, mut app) = pair(&listener);
            for turn in 0..3 {
                client.write_all(b"request").unwrap();
                assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
                if turn == 2 && asks_again {
                    break;
                }
                app.write_all(b"answer to the request").unwrap();
                assert_eq!(client.read(&mut [0; 100]).unwrap(), 21);
            }
            let long = 2 * MAX_QUIET.as_millis() as u32;
            let connection = once(&table, |c| c.last_received > long).await;
            if connection.is_tied() {
                break connection;
            }
        };
        assert_eq!(connection.replied, Some(!asks_again));
        assert_eq!(connection.waits(MAX_QUIET), asks_again, "{connection:?}");
    }
}
