//! The underlay sockets on loopback: who gets which datagram, and trains in one call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use warren_io::steer::{worker_of, worker_of_index};
use warren_io::{Received, Rooms, Sent, TRAINS_MAX, Train, UdpConfig, UdpSocket, bind};

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
    let mut rooms = Rooms::default();
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for (number, socket) in sockets.iter().enumerate() {
            if socket.recv(buf, &mut rooms, 1).is_ok() {
                return (number, rooms.trains()[0]);
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
    assert!(
        own.recv(&mut buf, &mut Rooms::default(), 1).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
}

/// What the socket has, in calls for `most` trains each: the datagrams, and how many trains each call brought.
fn drain(socket: &UdpSocket, most: usize) -> (Vec<Vec<u8>>, Vec<usize>) {
    let (mut rooms, mut room) = (Rooms::default(), vec![0; 65_536]);
    let (mut datagrams, mut calls) = (Vec::new(), Vec::new());
    while socket.recv(&mut room, &mut rooms, most).is_ok() {
        calls.push(rooms.trains().len());
        for (nth, train) in rooms.trains().iter().enumerate() {
            let bytes = if nth == 0 { &room[..train.len] } else { rooms.bytes(nth) };
            assert_eq!((bytes.len(), train.to), (train.len, Some(HERE)));
            datagrams.extend(bytes.chunks(train.segment).map(<[u8]>::to_vec));
        }
    }
    (datagrams, calls)
}

/// Datagrams of unequal length, so that the kernel joins none; each says which it is.
fn unequal(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|nth| vec![nth as u8; 100 + 7 * (nth % 5)]).collect()
}

/// Loopback delivers before it says that it has sent.
fn send_all(datagrams: &[Vec<u8>], to: SocketAddr) {
    let sender = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    for datagram in datagrams {
        sender.send_to(datagram, to).unwrap();
    }
}

#[test]
fn several_trains_come_in_one_call_in_the_order_in_which_they_were_sent() {
    let (sockets, to) = sockets(1);
    let sent = unequal(2 * TRAINS_MAX + 3);
    send_all(&sent, to);
    assert_eq!(drain(&sockets[0], 64), (sent, vec![TRAINS_MAX, TRAINS_MAX, 3]));
}

#[test]
fn no_call_brings_more_trains_than_were_asked_for() {
    let (sockets, to) = sockets(1);
    let sent = unequal(7);
    for (most, calls) in [(0, vec![1; 7]), (1, vec![1; 7]), (3, vec![3, 3, 1])] {
        send_all(&sent, to);
        assert_eq!(drain(&sockets[0], most), (sent.clone(), calls));
    }
}

#[test]
fn the_longest_trains_are_whole_in_every_room() {
    let (sockets, to) = sockets(1);
    let payload: Vec<u8> = (0..65_000u32).map(|byte| (byte / 1_300) as u8).collect();
    for _ in 0..TRAINS_MAX {
        assert_eq!(
            sockets[0].send(&Train { to, from: None, segment: 1_300, payload: &payload }, false),
            Sent::default()
        );
    }
    let (datagrams, calls) = drain(&sockets[0], TRAINS_MAX);
    assert_eq!(datagrams.concat(), payload.repeat(TRAINS_MAX));
    if sockets[0].gro() {
        assert_eq!(calls, [TRAINS_MAX]);
    }
}

#[test]
fn each_train_of_a_call_has_its_own_segment_and_sender() {
    let (sockets, to) = sockets(2);
    for segment in [300, 200, 100] {
        let train = Train { to, from: None, segment, payload: &[9; 600] };
        assert_eq!(sockets[1].send(&train, false), Sent::default());
    }
    let other = std::net::UdpSocket::bind((HERE, 0)).unwrap();
    other.send_to(&[9; 50], to).unwrap();
    let (mut rooms, mut room) = (Rooms::default(), vec![0; 65_536]);
    sockets[0].recv(&mut room, &mut rooms, TRAINS_MAX).unwrap();
    let got: Vec<_> = rooms.trains().iter().map(|train| (train.from, train.segment)).collect();
    if sockets[0].gro() {
        assert_eq!(got, [(to, 300), (to, 200), (to, 100), (other.local_addr().unwrap(), 50)]);
    }
}

/// A filter for this thread that answers these calls with "not permitted", as a container runtime's does with what it does
/// not know.
fn forbid(calls: [libc::c_long; 2]) {
    // Load the number of the call; 0x15 compares, 0x06 returns (include/uapi/linux/bpf_common.h, seccomp.h).
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, calls[0] as u32),
        step(0x15, 0, 1, calls[1] as u32),
        step(0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32),
        step(0x06, 0, 0, 0x7fff_0000),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl reads the program, which outlives the call; it binds this thread alone.
    let bound = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const filter, 0, 0) == 0
    };
    assert!(bound, "{}", std::io::Error::last_os_error());
}

/// Trains of these datagrams, each alone.
fn trains_of(datagrams: &[Vec<u8>], to: SocketAddr) -> impl Iterator<Item = (Train<'_>, bool)> + Clone {
    datagrams.iter().map(move |payload| (Train { to, from: None, segment: payload.len(), payload }, false))
}

#[test]
fn trains_of_every_length_leave_together_and_stay_in_order() {
    let (sockets, to) = sockets(1);
    let sent = unequal(2 * TRAINS_MAX + 3);
    sockets[0].send_all(trains_of(&sent, to), |nth, what| panic!("train {nth}: {what:?}"));
    assert_eq!(drain(&sockets[0], 64).0, sent);
    // Among them one of several datagrams, and one that has to leave datagram by datagram.
    let long = [[1; 400], [2; 400], [3; 400]].concat();
    let several = |singly| (Train { to, from: Some(HERE), segment: 400, payload: &long }, singly);
    let alone = trains_of(&sent, to);
    let all = alone.clone().take(2).chain([several(false), several(true)]).chain(alone.skip(2));
    sockets[0].send_all(all, |nth, what| panic!("train {nth}: {what:?}"));
    let chunks: Vec<Vec<u8>> = long.chunks(400).map(<[u8]>::to_vec).collect();
    assert_eq!(drain(&sockets[0], 64).0, [&sent[..2], &chunks, &chunks, &sent[2..]].concat());
}

#[test]
fn a_train_that_the_kernel_refuses_is_told_and_the_others_leave() {
    let (sockets, to) = sockets(1);
    let mut sent = unequal(2 * TRAINS_MAX);
    for nth in [0, 5, 6, 31] {
        sent[nth] = vec![0; 70_000];
    }
    let mut told = Vec::new();
    sockets[0].send_all(trains_of(&sent, to), |nth, what| told.push((nth, what)));
    let lost = Sent { lost: 1, too_big: 1, ..Sent::default() };
    assert_eq!(told, [(0, lost), (5, lost), (6, lost), (31, lost)]);
    sent.retain(|datagram| datagram.len() < 70_000);
    assert_eq!(drain(&sockets[0], 64).0, sent);
}

#[test]
fn where_a_filter_forbids_several_they_go_and_come_one_by_one() {
    let (sockets, to) = sockets(1);
    let sent = unequal(5);
    let got = std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            forbid([libc::SYS_recvmmsg, libc::SYS_sendmmsg]);
            sockets[0].send_all(trains_of(&sent, to), |nth, what| panic!("train {nth}: {what:?}"));
            drain(&sockets[0], TRAINS_MAX)
        });
        confined.join().unwrap()
    });
    assert_eq!(got, (sent, vec![1; 5]));
}
