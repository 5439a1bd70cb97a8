import ISCSI
import Testing

/// Bytes that no honest peer sends: nothing traps, everything ends, and answers stay as small as they may be.
@Suite struct LoginHostileTests {
    private static let host = CHAPIdentity(name: "host", secret: CHAPSecret(Array("host secret 1234".utf8)))
    private static let array = CHAPIdentity(name: "array", secret: CHAPSecret(Array("array secret 567".utf8)))

    private static let words = [
        "InitiatorName", "TargetName", "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "HeaderDigest",
        "MaxBurstLength", "FirstBurstLength", "MaxRecvDataSegmentLength", "InitialR2T", "ErrorRecoveryLevel", "IFMarkInt",
        "TargetAddress", "TargetPortalGroupTag", "SessionType", "SendTargets", "X-a", "Yes", "No", "None", "CHAP", "CRC32C", "Reject",
        "NotUnderstood", "Irrelevant", "0x", "0bAAAA", "0x00ff", "65536", "18446744073709551616", "Discovery", "5,6,7,8", ",,", "[::1]:1",
        "=", "=", "=", "=", "\0", "\0", "\0", "\0", "é", "",
    ]

    /// Text that looks like a negotiation, bytes that look like nothing, and mixtures.
    private static func noise(_ random: inout WireRandom) -> [UInt8] {
        switch random.next() % 4 {
        case 0: return random.bytes(Int(random.next() % 300))
        case 1: return []
        case 2:
            var bytes: [UInt8] = []
            for _ in 0..<Int(random.next() % 30) { bytes += Array(word(&random).utf8) }
            return bytes
        default:
            var bytes: [UInt8] = []
            for _ in 0..<Int(random.next() % 12) {
                let key: String = words[Int(random.next() % 25)]
                bytes += Array("\(key)=\(word(&random))\0".utf8)
            }
            return bytes
        }
    }

    private static func word(_ random: inout WireRandom) -> String {
        words[Int(random.next() % UInt64(words.count))]
    }

    /// One change to a valid PDU, of header, text or both.
    private static func mutate(_ pdu: inout PDU, _ random: inout WireRandom) {
        var header = pdu.header
        var data = pdu.data
        switch random.next() % 6 {
        case 0: header[byte: Int(random.next() % 48)] ^= UInt8(truncatingIfNeeded: random.next())
        case 1: header.loginFlags = LoginFlags(rawValue: UInt8(truncatingIfNeeded: random.next()))
        case 2: if !data.isEmpty { data[Int(random.next() % UInt64(data.count))] ^= UInt8(truncatingIfNeeded: random.next()) }
        case 3: data += noise(&random)
        case 4: data = noise(&random)
        default: data = Array(data.prefix(Int(random.next() % UInt64(data.count + 1))))
        }
        pdu = PDU(header: header, data: data)
    }

    private static func settings(_ seed: UInt64) -> (LoginSettings, TargetLoginGrant) {
        var settings = LoginPair.settings
        var grant = TargetLoginGrant()
        if seed % 2 == 0 {
            settings.chap = CHAPCredentials(identity: host, mutual: seed % 4 == 0 ? array : nil)
            grant.authentication = .chap(initiators: [host], own: array)
        }
        if seed % 3 == 0 { settings.operational.headerDigest = [.crc32c, .none] }
        if seed % 5 == 0 {
            settings.sessionType = .discovery
            settings.targetName = nil
        }
        return (settings, grant)
    }

    @Test func `Changed PDUs end in an outcome, and both sides agree or one refuses`() {
        for seed in UInt64(0)..<4000 {
            let (settings, grant) = Self.settings(seed)
            var pair = LoginPair(settings, grant: grant)
            var random = WireRandom(seed: seed)
            let victim = Int(random.next() % 5)
            let touchesRequests = random.next() % 2 == 0
            let touch: (inout PDU, Int) -> Void = { pdu, index in
                if index == victim { Self.mutate(&pdu, &random) }
            }
            if touchesRequests { pair.tamperRequest = touch } else { pair.tamperResponse = touch }
            let outcome = pair.run()
            #expect(pair.requests.count <= 65 && pair.responses.count <= 65)
            #expect(pair.requests.allSatisfy { $0.data.count <= 8192 + 300 } && pair.responses.allSatisfy { $0.data.count <= 8192 + 300 })
            if case .finished(let result, let accepted) = outcome {
                let parameters = result.parameters
                #expect((512...16_777_215).contains(parameters.maxSendDataSegmentByteCount))
                #expect((512...settings.operational.maxBurstByteCount).contains(parameters.maxBurstByteCount))
                #expect(parameters.firstBurstByteCount <= parameters.maxBurstByteCount)
                #expect(parameters.maxConnections == 1 && parameters.errorRecoveryLevel == 0)
                // No change to the wire gets past a proof of identity.
                if case .chap = grant.authentication { #expect(accepted.authenticatedName == "host") }
                if settings.chap?.mutual != nil { #expect(result.authenticatedWith != nil) }
            }
        }
    }

    @Test func `A target made of noise never harms an initiator`() {
        for seed in UInt64(0)..<3000 {
            var random = WireRandom(seed: seed &+ 1_000_000)
            let (settings, _) = Self.settings(seed)
            var login = InitiatorLogin(settings: settings, cryptography: WireCryptography())
            guard case .send(var request) = login.start() else {
                Issue.record("a login begins with a request")
                return
            }
            var statSN: UInt32 = 0
            for _ in 0..<70 {
                // Fields that an initiator checks are right most of the time, so that noise gets further in.
                var header = BasicHeaderSegment.loginResponse(
                    LoginFlags(rawValue: random.next() % 3 == 0 ? UInt8(truncatingIfNeeded: random.next()) : request.header.flags),
                    isid: request.header.isid, tsih: random.next() % 2 == 0 ? 1 : 0, tag: request.header.initiatorTaskTag,
                    numbers: ResponseNumbers(statSN: statSN, expCmdSN: 0, maxCmdSN: 0))
                if random.next() % 20 == 0 { header.loginStatus = LoginStatus(rawValue: UInt16(truncatingIfNeeded: random.next())) }
                if random.next() % 30 == 0 { header.opcode = PDUOpcode(rawValue: UInt8(truncatingIfNeeded: random.next() & 0x3F)) }
                statSN &+= 1
                let action = Self.noise(&random).withUnsafeBytes { login.received(header, data: $0) }
                guard case .send(let next) = action else { break }
                #expect(next.data.count <= 8192)
                request = next
            }
            #expect(login.isOver)
        }
    }

    @Test func `An initiator made of noise never harms a target, and never gets in unproved`() {
        for seed in UInt64(0)..<3000 {
            var random = WireRandom(seed: seed &+ 2_000_000)
            let (_, grant) = Self.settings(seed)
            var login = TargetLogin(cryptography: WireCryptography())
            for index in 0..<70 {
                let flags = random.next() % 3 == 0 ? UInt8(truncatingIfNeeded: random.next()) : [0x00, 0x81, 0x04, 0x87][Int(random.next() % 4)]
                let header = BasicHeaderSegment.loginRequest(
                    LoginFlags(rawValue: flags), isid: ISID(rawValue: 1), tsih: 0, connectionID: 0, tag: 0, cmdSN: 0, expStatSN: 0)
                let text = (index == 0 ? Array("InitiatorName=a\0TargetName=b\0".utf8) : []) + Self.noise(&random)
                var action = text.withUnsafeBytes { login.received(header, data: $0) }
                if case .identify = action { action = login.identified(.accept(grant)) }
                if case .establish = action { action = login.established(.admit(tsih: 1, expCmdSN: 0, maxCmdSN: 0)) }
                switch action {
                case .send(let pdu): #expect(pdu.data.count <= 8192)
                case .finished(_, let result):
                    if case .chap = grant.authentication { #expect(result.authenticatedName != nil) }
                default: break
                }
                if login.isOver { break }
            }
            #expect(login.isOver)
        }
    }

    @Test func `Parsers take any bytes`() {
        for seed in UInt64(0)..<5000 {
            var random = WireRandom(seed: seed &+ 3_000_000)
            let bytes = Self.noise(&random)
            if let parameters = try? TextParameters(parsing: bytes) {
                #expect(parameters.pairs.count <= bytes.count / 3 + 1)
                #expect((try? TextParameters(parsing: parameters.encoded)) == parameters)
            }
            if let targets = try? SendTargets.targets(parsing: bytes) {
                #expect((try? SendTargets.targets(parsing: SendTargets.encode(targets))) == targets)
            }
            let text = String(decoding: bytes.prefix(40), as: UTF8.self)
            if let address = TargetAddress(parsing: text) { #expect(TargetAddress(parsing: address.description) == address) }
            if let name = try? ISCSIName(text) { #expect(name.text == text) }
            _ = TextValue.number(text)
            if let binary = TextValue.binary(text, limit: 16) { #expect(binary.count <= 16) }
            if bytes.count >= 48 {
                let header = bytes.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) }
                #expect(header.wireBytes == Array(bytes.prefix(48)))
                _ = (AsyncMessage(header), header.residual, header.loginFlags.currentStage, header.taskAttribute, header.cdb, header.opcode.description)
            }
        }
    }
}
