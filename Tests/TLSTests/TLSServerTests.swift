import COpenSSL
import Testing

@testable import TLS

@Suite struct TLSServerTests {
    private static let key = Array(0..<32) as [UInt8]
    private let context: TLSServerContext

    init() throws {
        let text = "vm:" + Self.key.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        context = try TLSServerContext(keys: Array(text.utf8).withUnsafeBytes { try PreSharedKeys(parsing: $0, path: "keys") })
    }

    private func pair(_ version: Int32 = TLS1_3_VERSION, user: String = "vm", key: [UInt8] = key, pieceByteCount: Int = 1 << 14) throws -> Pair {
        Pair(client: TestClient(user: user, key: key, version: version), server: try TLSServerConnection(context), pieceByteCount: pieceByteCount)
    }

    private static func bytes(_ count: Int, _ seed: Int = 1) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 2_654_435_761 >> 11) }
    }

    @Test(arguments: [(TLS1_2_VERSION, "TLSv1.2"), (TLS1_3_VERSION, "TLSv1.3")], [1, 100, 1 << 14])
    func bytesGoBothWays(_ version: (Int32, String), _ pieceByteCount: Int) throws {
        let pair = try pair(version.0, pieceByteCount: pieceByteCount)
        #expect(pair.server.userName == nil && pair.server.version == nil)
        try pair.handshake()
        #expect(pair.client.isEstablished && pair.server.isEstablished)
        #expect(pair.server.userName == "vm" && pair.server.version == version.1)
        for count in [1, 1000, 16_384, 100_000] {
            pair.client.write(Self.bytes(count))
            #expect(try pair.toServer() == Self.bytes(count))
            try Self.bytes(count, 7).withUnsafeBytes { try pair.server.write($0) }
            pair.toClient()
            #expect(pair.client.read() == Self.bytes(count, 7))
        }
        pair.client.finish()
        #expect(try pair.toServer().isEmpty)
        #expect(pair.server.hasPeerFinished)
        pair.server.finish()
        #expect(!pair.serverOutput().isEmpty, "close_notify")
    }

    /// Both fail at the same place, with the same alert: who is known is not told.
    @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func aWrongKeyAndAStrangerAreToldApartHereOnly(_ version: Int32) throws {
        func end(_ user: String, _ key: [UInt8]) throws -> (TLSFailure?, [UInt8]) {
            let pair = try pair(version, user: user, key: key)
            let failure = #expect(throws: TLSFailure.self) { try pair.handshake() }
            #expect(!pair.server.isEstablished && pair.server.userName == nil)
            #expect(throws: TLSFailure.self, "it stays so") { try pair.server.handshake() }
            let alert = pair.serverOutput()
            pair.client.receive(alert)
            #expect(!pair.client.handshake() && pair.client.error.contains("alert"), "\(pair.client.error)")
            return (failure, Array(alert.suffix(7)))
        }
        let wrong = try end("vm", Self.key.reversed())
        let stranger = try end("eve", Self.key)
        #expect(wrong.0 == .wrongKey(user: "vm"))
        #expect(stranger.0 == .unknownUser("eve"))
        // A fatal alert in the clear: type, version, length 2, and two bytes. In 1.2 it is encrypted by then.
        if version == TLS1_3_VERSION { #expect(wrong.1 == stranger.1 && wrong.1[0] == 21) }
    }

    @Test func olderVersionsAreRefused() throws {
        for version in [TLS1_VERSION, TLS1_1_VERSION] {
            let pair = try pair(version)
            #expect(throws: TLSFailure.versionTooOld) { try pair.handshake() }
        }
    }

    /// Without forward secrecy, or without AEAD.
    @Test(arguments: ["PSK-AES128-GCM-SHA256", "RSA-PSK-AES128-GCM-SHA256", "ECDHE-PSK-AES128-CBC-SHA256"])
    func weakSuitesAreRefused(_ suite: String) throws {
        let pair = Pair(
            client: TestClient(user: "vm", key: Self.key, version: TLS1_2_VERSION, ciphers: suite), server: try TLSServerConnection(context))
        #expect(throws: TLSFailure.nothingInCommon) { try pair.handshake() }
    }

    @Test func certificatesAreNotOffered() throws {
        let pair = Pair(
            client: TestClient(user: "vm", key: Self.key, version: TLS1_2_VERSION, ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"),
            server: try TLSServerConnection(context))
        #expect(throws: TLSFailure.nothingInCommon) { try pair.handshake() }
    }

    @Test(arguments: [
        Array("GET / HTTP/1.1\r\n\r\n".utf8), Array("IHAVEOPT\u{0}\u{0}\u{0}\u{7}".utf8), [UInt8](repeating: 0xA5, count: 100),
        [UInt8](repeating: 0, count: 100), [0x80, 0x2E, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
    ])
    func whatIsNoTLSIsSaidToBeNone(_ bytes: [UInt8]) throws {
        let pair = try pair()
        let failure = #expect(throws: TLSFailure.self) { try pair.toServer(bytes + [UInt8](repeating: 0, count: 100)) }
        #expect(failure == .notTLS || failure == .versionTooOld || failure == .nothingInCommon, "\(String(describing: failure))")
    }

    @Test func renegotiationIsRefused() throws {
        let pair = try pair(TLS1_2_VERSION)
        try pair.handshake()
        #expect(SSL_renegotiate(pair.client.connection) == 1)
        SSL_do_handshake(pair.client.connection)
        // A warning, no handshake: the connection goes on.
        #expect(try pair.toServer().isEmpty)
        let alert = pair.serverOutput()
        #expect(alert.first == 21 && alert.count < 64, "\(alert.count) bytes")
    }

    /// Asking for new keys again and again costs as much in answers as it does in questions, and no more.
    @Test func newKeysAreMadeAsOftenAsTheClientWants() throws {
        let pair = try pair()
        try pair.handshake()
        var asked = 0
        for _ in 0..<1000 {
            pair.client.updateKey()
            let bytes = pair.client.takeOutput()
            asked += bytes.count
            try pair.toServer(bytes)
        }
        #expect(pair.server.outputByteCount <= 2 * asked)
        pair.toClient()
        _ = pair.client.read()
        pair.client.write([1, 2, 3])
        #expect(try pair.toServer() == [1, 2, 3])
        try ([4, 5] as [UInt8]).withUnsafeBytes { try pair.server.write($0) }
        pair.toClient()
        #expect(pair.client.read() == [4, 5])
    }

    @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func aChangedRecordEndsTheConnection(_ version: Int32) throws {
        let pair = try pair(version)
        try pair.handshake()
        pair.client.write(Self.bytes(1000))
        var bytes = pair.client.takeOutput()
        bytes[bytes.count - 20] ^= 1
        #expect(throws: TLSFailure.self) { try pair.toServer(bytes) }
        #expect(throws: TLSFailure.self) { try [UInt8](repeating: 0, count: 1).withUnsafeBytes { try pair.server.write($0) } }
    }

    /// A handshake with bits turned, bytes left out and doubled, at any place: it fails or waits, nothing traps.
    @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func damagedHandshakesHarmNothing(_ version: Int32) throws {
        var numbers = SystemRandomNumberGenerator()
        var failed = 0
        for _ in 0..<300 {
            let pair = try pair(version)
            pair.client.handshake()
            let isSecond = Bool.random(using: &numbers)
            do {
                if isSecond {
                    try pair.toServer()
                    pair.toClient()
                    pair.client.handshake()
                }
                var bytes = pair.client.takeOutput()
                guard !bytes.isEmpty else { continue }
                let place = Int.random(in: 0..<bytes.count, using: &numbers)
                switch Int.random(in: 0..<3, using: &numbers) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &numbers)
                case 1: bytes.remove(at: place)
                default: bytes.insert(bytes[place], at: place)
                }
                try pair.toServer(bytes)
            } catch is TLSFailure {
                failed += 1
            }
        }
        #expect(failed > 100, "\(failed)")
    }

    /// As much as a client may say before it has shown a key.
    @Test func aGreetingWithoutEndIsCutOff() throws {
        let pair = try pair()
        // One handshake message of 16 MiB, in records of 16 KiB.
        let record: [UInt8] = [22, 3, 1, 0x40, 0] + [1, 0xFF, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 16_380)
        #expect(throws: TLSFailure.self) { for _ in 0..<20 { try pair.toServer(record) } }
    }
}
