import ISCSI
import Testing

@Suite struct TextParametersTests {
    private func parse(_ text: String) throws -> TextParameters { try TextParameters(parsing: Array(text.utf8)) }

    private func error(_ bytes: [UInt8]) -> TextError? {
        do throws(TextError) {
            _ = try TextParameters(parsing: bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test func `Pairs keep their order, and values may hold an equals sign or nothing`() throws {
        let parameters = try parse("B=2\0A=x=y\0C=\0")
        #expect(parameters.pairs == [TextPair("B", "2"), TextPair("A", "x=y"), TextPair("C", "")])
        #expect(parameters["A"] == "x=y")
        #expect(parameters["D"] == nil)
        #expect(parameters.encoded == Array("B=2\0A=x=y\0C=\0".utf8))
    }

    @Test func `NULs in a row are no pairs`() throws {
        #expect(try parse("\0A=1\0\0\0B=2\0\0").pairs.count == 2)
        #expect(try parse("").isEmpty)
    }

    @Test func `Each fault has its name`() {
        #expect(error(Array("Key\0".utf8)) == .missingEquals("Key"))
        #expect(error(Array("=1\0".utf8)) == .emptyKey)
        #expect(error(Array("A B=1\0".utf8)) == .illegalKey("A B"))
        #expect(error(Array("A=1\0B=2".utf8)) == .unterminated)
        #expect(error(Array("A=1\0A=1\0".utf8)) == .duplicateKey("A"))
        #expect(error(Array("A=".utf8) + [0xFF, 0]) == .notUTF8(key: "A"))
        #expect(error(Array((String(repeating: "K", count: 64) + "=1\0").utf8)) == .keyTooLong(byteCount: 64))
        #expect(error(Array((String(repeating: "K", count: 63) + "=1\0").utf8)) == nil)
        #expect(error(Array(("Key=" + String(repeating: "v", count: 256) + "\0").utf8)) == .valueTooLong(key: "Key", byteCount: 256))
        #expect(error(Array(("Key=" + String(repeating: "v", count: 255) + "\0").utf8)) == nil)
        #expect(error(Array(repeating: 0, count: 65_537)) == .tooLong(byteCount: 65_537, limit: 65_536))
    }

    @Test func `A long CHAP challenge is not too long`() {
        #expect(error(Array(("CHAP_C=0x" + String(repeating: "ab", count: 1024) + "\0").utf8)) == nil)
        #expect(error(Array(("CHAP_C=0x" + String(repeating: "ab", count: 1025) + "\0").utf8)) != nil)
    }

    @Test func `More keys than any negotiation has are refused`() {
        let many = (0..<257).map { "X-\($0)=1\0" }.joined()
        #expect(error(Array(many.utf8)) == .tooManyKeys(limit: 256))
    }

    @Test func `An assembler puts pieces together and stops at its bound`() throws {
        var assembler = TextAssembler(limit: 10)
        let text = Array("A=1\0B=2\0".utf8)
        for byte in text { try withUnsafeBytes(of: byte) { try assembler.append($0) } }
        #expect(assembler.bytes == text)
        #expect(throws: TextError.tooLong(byteCount: 11, limit: 10)) {
            try [UInt8](repeating: 0, count: 3).withUnsafeBytes { try assembler.append($0) }
        }
        #expect(assembler.take() == text)
        #expect(assembler.take().isEmpty)
    }
}

@Suite struct TextValueTests {
    @Test func `Numbers are decimal or hexadecimal and never wrap`() {
        let cases: [(String, UInt64?)] = [
            ("0", 0), ("65536", 65536), ("0x10", 16), ("0XfF", 255), ("18446744073709551615", .max),
            ("0xffffffffffffffff", .max), ("18446744073709551616", nil), ("0x10000000000000000", nil), ("", nil), ("0x", nil),
            ("-1", nil), ("1a", nil), (" 1", nil), ("99999999999999999999999", nil), ("0xg", nil),
        ]
        for (text, expected) in cases { #expect(TextValue.number(text) == expected, "\(text)") }
    }

    @Test func `Binary values decode from both encodings`() {
        let cases: [(String, [UInt8]?)] = [
            ("0x00ff10", [0, 255, 16]), ("0XABC", [0x0A, 0xBC]), ("0bAAECAw==", [0, 1, 2, 3]), ("0BAAECAw", [0, 1, 2, 3]),
            ("0bAAEC", [0, 1, 2]), ("0bAAE=", [0, 1]), ("0x", nil), ("0b", nil), ("0xzz", nil), ("0bA", nil), ("0bAA=", nil),
            ("0bAB==", nil), ("0b====", nil), ("0b!!!!", nil), ("00ff", nil), ("", nil), ("12", nil), ("0bAA===", nil),
        ]
        for (text, expected) in cases { #expect(TextValue.binary(text, limit: 16) == expected, "\(text)") }
    }

    @Test func `Binary values over the limit are refused in both encodings`() {
        #expect(TextValue.binary("0x" + String(repeating: "00", count: 16), limit: 16)?.count == 16)
        #expect(TextValue.binary("0x" + String(repeating: "00", count: 17), limit: 16) == nil)
        #expect(TextValue.binary("0b" + String(repeating: "AAAA", count: 5) + "AA==", limit: 16)?.count == 16)
        #expect(TextValue.binary("0b" + String(repeating: "AAAA", count: 5) + "AAA=", limit: 16) == nil)
    }

    @Test func `What is encoded decodes to itself`() {
        var random = WireRandom(seed: 3)
        for count in 1..<70 {
            let bytes = random.bytes(count)
            #expect(TextValue.binary(TextValue.hexadecimal(bytes), limit: count) == bytes)
        }
    }
}

@Suite struct ISCSINameTests {
    @Test(arguments: [
        "iqn.2001-04.com.example", "iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", "iqn.2026-11.org.example:host-1",
        "eui.02004567A425678D", "naa.52004567BA64678D", "naa.62004567BA64678D0123456789ABCDEF", "iqn.1998-01.com.vmware:größe",
    ])
    func `Names of each format are taken`(name: String) throws {
        #expect(try ISCSIName(name).text == name)
    }

    @Test func `Each fault has its name`() {
        let cases: [(String, ISCSIName.Fault)] = [
            ("", .empty), (String(repeating: "x", count: 224), .tooLong(byteCount: 224)), ("host-1", .unknownFormat),
            ("IQN.2001-04.com.example", .unknownFormat), ("iqn.2001-04.com.Example", .illegalCharacter(at: 16)),
            ("iqn.2001-04.com.example:a b", .illegalCharacter(at: 25)), ("iqn.2001-13.com.example", .malformedDate),
            ("iqn.2001-4.com.example", .malformedDate), ("iqn.20", .malformedDate), ("iqn.2001-04com.example", .malformedDate),
            ("iqn.2001-04.", .missingAuthority), ("iqn.2001-04.:x", .missingAuthority), ("eui.0200", .wrongDigitCount(4)),
            ("naa.52004567BA64678", .wrongDigitCount(15)), ("eui.02004567A425678G", .illegalCharacter(at: 19)),
        ]
        for (name, expected) in cases {
            #expect(throws: expected, "\(name)") { try ISCSIName(name) }
        }
    }
}

@Suite struct TargetAddressTests {
    @Test func `Hosts, ports and tags are told apart`() {
        let cases: [(String, TargetAddress?)] = [
            ("10.0.0.1", TargetAddress(host: "10.0.0.1")),
            ("10.0.0.1:860,2", TargetAddress(host: "10.0.0.1", port: 860, portalGroupTag: 2)),
            ("10.0.0.1,65535", TargetAddress(host: "10.0.0.1", portalGroupTag: 65535)),
            ("[::1]", TargetAddress(host: "::1")),
            ("[2001:db8::1]:5000,1", TargetAddress(host: "2001:db8::1", port: 5000, portalGroupTag: 1)),
            ("[fe80::1%eth0]:3260", TargetAddress(host: "fe80::1%eth0")),
            ("array-1.example.org:3261", TargetAddress(host: "array-1.example.org", port: 3261)),
            ("", nil), (":3260", nil), ("10.0.0.1:", nil), ("10.0.0.1:0", nil), ("10.0.0.1:65536", nil), ("10.0.0.1:1x", nil),
            ("10.0.0.1,", nil), ("10.0.0.1,65536", nil), ("[::1", nil), ("[]", nil), ("[::1]3260", nil), ("[abc]", nil),
            ("::1", nil), ("a b", nil), ("10.0.0.1,1,2", nil), (String(repeating: "a", count: 400), nil),
        ]
        for (text, expected) in cases { #expect(TargetAddress(parsing: text) == expected, "\(text)") }
    }

    @Test func `What is described parses to itself`() {
        for address in [
            TargetAddress(host: "10.0.0.1"), TargetAddress(host: "::1", port: 1, portalGroupTag: 0),
            TargetAddress(host: "array", port: 65535, portalGroupTag: 9),
        ] {
            #expect(TargetAddress(parsing: address.description) == address)
        }
        #expect(TargetAddress(host: "fe80::2", port: 860, portalGroupTag: 3).description == "[fe80::2]:860,3")
    }
}

@Suite struct SendTargetsTests {
    private func failure(_ text: String) -> SendTargets.Failure? {
        do throws(SendTargets.Failure) {
            _ = try SendTargets.targets(parsing: Array(text.utf8))
            return nil
        } catch {
            return error
        }
    }

    @Test func `An answer lists targets and their addresses in order`() throws {
        let targets = [
            DiscoveredTarget(
                name: "iqn.2026-11.org.example:b",
                addresses: [TargetAddress(host: "10.0.0.2", portalGroupTag: 2), TargetAddress(host: "::1", port: 860, portalGroupTag: 1)]),
            DiscoveredTarget(name: "iqn.2026-11.org.example:a"),
        ]
        #expect(try SendTargets.targets(parsing: SendTargets.encode(targets)) == targets)
    }

    @Test func `Thousands of targets over several PDUs come back whole`() throws {
        let targets = (0..<5000).map { index in
            DiscoveredTarget(
                name: "iqn.2026-11.org.example:disk-\(index)",
                addresses: [TargetAddress(host: "10.0.\(index / 256).\(index % 256)", portalGroupTag: 1)])
        }
        let bytes = SendTargets.encode(targets)
        var assembler = TextAssembler(limit: SendTargets.answerByteCount)
        for start in stride(from: 0, to: bytes.count, by: 8192) {
            try bytes[start..<min(start + 8192, bytes.count)].withUnsafeBytes { try assembler.append($0) }
        }
        #expect(try SendTargets.targets(parsing: assembler.take()) == targets)
    }

    @Test func `Other keys are passed over`() throws {
        let text = "TargetName=iqn.a\0TargetAlias=big one\0X-org.example.rack=7\0TargetAddress=10.0.0.1:3260,1\0"
        #expect(try SendTargets.targets(parsing: Array(text.utf8)) == [
            DiscoveredTarget(name: "iqn.a", addresses: [TargetAddress(host: "10.0.0.1", portalGroupTag: 1)])
        ])
    }

    @Test func `Faults are named`() {
        #expect(failure("TargetName\0") == .text(.missingEquals("TargetName")))
        #expect(failure("SendTargets=Reject\0") == .refused("Reject"))
        guard case .key(let early)? = failure("TargetAddress=10.0.0.1\0") else {
            Issue.record("an address before a name was taken")
            return
        }
        #expect(early.key == "TargetAddress" && early.value == "10.0.0.1")
        guard case .key? = failure("TargetName=a\0TargetAddress=:\0") else {
            Issue.record("a bad address was taken")
            return
        }
        guard case .key? = failure("TargetName=\0") else {
            Issue.record("an empty name was taken")
            return
        }
    }

    @Test func `A request's value says which targets`() {
        for request in [SendTargets.Request.all, .sessionTarget, .named("iqn.2026-11.org.example:a")] {
            #expect(SendTargets.Request(value: request.value) == request)
        }
        #expect(SendTargets.Request(value: "all of them") == nil)
        #expect(SendTargets.Request.all.encoded == Array("SendTargets=All\0".utf8))
    }
}
