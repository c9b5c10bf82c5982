//! The underlay sockets on loopback: who gets which datagram, and trains in one call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use warren_io::steer::{worker_of, worker_of_index};
use warren_io::{Received, Sent, Train, UdpConfig, UdpSocket, bind};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::UdpSocket::bind((HERE, 0)).unwrap().local_addr().unwrap().port()
}

fn sockets(count: usize) -> (Vec<UdpSocket>, SocketAddr) {
    let port = free_port();
    (bind(&UdpConfig { port, sockets: count, gso: true, gro: true, mark: 0 }).unwrap(), SocketAddr::new(HERE, port))
}

/// Waits until one of the sockets has a train.
fn next(sockets: &[UdpSocket], buf: &mut [u8]) -> (usize, Received) {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for (number, socket) in sockets.iter().enumerate() {
            if let Ok(received) = socket.recv(buf) {
                return (number, received);
            }
        }
        std::thread::yield_now();
    }
    panic!("nothing came");
}

/// A data message for this receiver index.
fn data(index: u32) -> [u8; 64] {
    let mut datagram = [0; 64];
    datagram[0] = 4;
    datagram[4..8].copy_from_slice(&index.to_le_bytes());
    datagram
}

#[test]
fn an_associations_packets_go_to_the_worker_that_their_index_names() {
    for workers in [1, 2, 3, 4, 8] {
        let (sockets, to) = sockets(workers);
        let sender = std::net::UdpSocket::bind((HERE, 0)).unwrap();
        for worker in 0..64 {
            let index = 0x8285_a200 | worker;
            sender.send_to(&data(index), to).unwrap();
            let (got, _) = next(&sockets, &mut [0; 2048]);
            assert_eq!(got, worker_of_index(index, workers), "{index:08x} of {workers} workers");
        }
    }
}

#[test]
fn a_tunnels_packets_go_to_its_worker_and_everything_else_to_the_first() {
    let (sockets, to) = sockets(4);
    let sender = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    for peer in [0, 1, 2, 3, 7, 255, 256, 0x7f_fffe] {
        for session in [0, 1, 255] {
            sender.send_to(&data(peer << 8 | session), to).unwrap();
            assert_eq!(next(&sockets, &mut [0; 2048]).0, worker_of(peer, 4), "peer {peer}");
        }
    }
    for other in
        [&[1u8, 0, 0, 0, 9, 9, 9, 0x89][..], &[2, 0, 0, 0, 3, 3, 3, 3], &[4, 0, 0, 1, 1, 1, 1, 0x81], b"hello", b"?"]
    {
        sender.send_to(other, to).unwrap();
        assert_eq!(next(&sockets, &mut [0; 2048]).0, 0, "{other:?}");
    }
}

#[test]
fn a_train_leaves_and_comes_in_one_call_each() {
    let (sockets, to) = sockets(1);
    let payload: Vec<u8> = (0..4_000u32).map(|byte| byte as u8).collect();
    let train = Train { to, from: None, segment: 1_000, payload: &payload };
    assert_eq!(sockets[0].send(&train, false), Sent::default());
    let mut buf = vec![0; 65_536];
    let (mut seen, mut calls) = (Vec::new(), 0);
    while seen.len() < payload.len() {
        let (_, received) = next(&sockets, &mut buf);
        assert_eq!((received.segment, received.from), (1_000, to));
        seen.extend_from_slice(&buf[..received.len]);
        calls += 1;
    }
    assert_eq!(seen, payload);
    assert_eq!(calls, if sockets[0].gro() { 1 } else { 4 });
}

#[test]
fn a_train_sent_singly_is_the_same_datagrams() {
    let (sockets, to) = sockets(1);
    let train = Train { to, from: Some(HERE), segment: 500, payload: &[7; 1_300] };
    assert_eq!(sockets[0].send(&train, true), Sent::default());
    let mut lengths = Vec::new();
    while lengths.iter().sum::<usize>() < 1_300 {
        lengths.push(next(&sockets, &mut [0; 2048]).1.len);
    }
    assert_eq!(lengths, [500, 500, 300]);
}

#[test]
fn a_second_agent_on_the_port_is_refused() {
    let (_first, to) = sockets(2);
    let second = bind(&UdpConfig { port: to.port(), sockets: 2, gso: true, gro: true, mark: 0 });
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_socket_of_its_own_port_sends_trains_and_takes_nothing() {
    let (sockets, to) = sockets(1);
    let own = sockets[0].outgoing(0).unwrap();
    let port = own.port().unwrap();
    assert_ne!(port, to.port());
    let payload = [data(1 << 31), data(1 << 31), data(1 << 31)].concat();
    assert_eq!(own.send(&Train { to, from: None, segment: 64, payload: &payload }, false), Sent::default());
    let (mut buf, mut came) = ([0; 2048], 0);
    while came < payload.len() {
        let (_, received) = next(&sockets, &mut buf);
        assert_eq!(received.from.port(), port);
        came += received.len;
    }
    let answer = Train { to: SocketAddr::new(HERE, port), from: None, segment: 64, payload: &data(1 << 31) };
    assert_eq!(sockets[0].send(&answer, false), Sent::default());
    // On loopback it was taken or refused before the call came back.
    assert!(own.recv(&mut buf).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}
