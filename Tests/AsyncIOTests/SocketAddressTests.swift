import AsyncIO
import Testing

@Suite struct SocketAddressTests {
    @Test(
        "what is parsed is printed again",
        arguments: [
            "10.0.1.10:3260", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:3260", "[2001:db8::7]:860",
            "[fe80::1%lo]:3260", "[fe80::1%4000000000]:3260", "unix:/run/mpio/a b.sock", "unix:relative",
        ])
    func roundTrip(text: String) {
        #expect(SocketAddress(text)?.description == text)
    }

    @Test("a port that is left out is the default one")
    func defaultPort() {
        #expect(SocketAddress("10.0.1.10", defaultPort: 3260) == .ipv4(address: 0x0A00_010A, port: 3260))
        #expect(SocketAddress("10.0.1.10:1", defaultPort: 3260)?.port == 1)
        #expect(SocketAddress("[fe80::2]", defaultPort: 3260)?.description == "[fe80::2]:3260")
        #expect(SocketAddress("fe80::2", defaultPort: 3260)?.description == "[fe80::2]:3260")
        #expect(SocketAddress("fe80::2%7", defaultPort: 1)?.host == "fe80::2%7")
        #expect(SocketAddress("10.0.1.10") == nil)
        #expect(SocketAddress("::1") == nil)
        #expect(SocketAddress("[::1]") == nil)
    }

    @Test(
        "nonsense is refused",
        arguments: [
            "", ":", ":3260", "10.0.1:3260", "10.0.1.256:1", "10.0.1.10:", "10.0.1.10:65536", "10.0.1.10:-1",
            "10.0.1.10:+1", "10.0.1.10:3260x", "10.0.1.10:99999999999999999999", "[::1]3260", "[::1", "[10.0.1.10]:1",
            "[::1%]:1", "[::1%no-such-interface]:1", "[::1%99999999999]:1", "[:::1]:1", "unix:", "unix:\0abc",
            "host.example:3260", "1.2.3.4\0:3260", "[]:1", "]:[",
            "unix:/" + String(repeating: "a", count: 107),
        ])
    func nonsense(text: String) {
        #expect(SocketAddress(text, defaultPort: 3260) == nil)
        #expect(SocketAddress(text) == nil)
    }

    @Test("the longest path fits")
    func longestPath() {
        let path = "/" + String(repeating: "a", count: 106)
        #expect(SocketAddress("unix:" + path) == .unix(path: path))
    }

    @Test("names are resolved only where asked for")
    func resolve() throws {
        #expect(try SocketAddress.resolve(host: "127.0.0.3", port: 5) == [.ipv4(address: 0x7F00_0003, port: 5)])
        let addresses = try SocketAddress.resolve(host: "localhost", port: 3260)
        #expect(addresses.contains { $0.host == "127.0.0.1" || $0.host == "::1" })
        #expect(addresses.allSatisfy { $0.port == 3260 })
        #expect(throws: ResolutionError.self) { try SocketAddress.resolve(host: "no\0name", port: 1) }
        #expect(throws: ResolutionError.self) { try SocketAddress.resolve(host: "", port: 1) }
    }
}
