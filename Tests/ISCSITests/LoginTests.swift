import ISCSI
import Testing

@Suite struct LoginTests {
    private static let hostSecret = CHAPSecret(Array("host secret 1234".utf8))
    private static let arraySecret = CHAPSecret(Array("array secret 567".utf8))
    private static let host = CHAPIdentity(name: "host", secret: hostSecret)
    private static let array = CHAPIdentity(name: "array", secret: arraySecret)

    @Test func `A login without CHAP goes through the security stage, for the targets that reinstate only there`() throws {
        var settings = LoginPair.settings
        settings.skipsSecurityStage = false
        var pair = LoginPair(settings)
        guard case .finished(let result, _) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(
            pair.requests.map(\.header.loginFlags) == [
                LoginFlags(current: .securityNegotiation, next: .operationalNegotiation),
                LoginFlags(current: .operationalNegotiation, next: .fullFeature),
            ])
        #expect(pair.requested("AuthMethod") == "None")
        #expect(result.authenticatedWith == nil && result.portalGroupTag == 1)
    }

    @Test func `The shortest login is one exchange, and every field is what it should be`() throws {
        var pair = LoginPair(LoginPair.settings)
        guard case .finished(let result, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.requests.count == 1)
        let request = pair.requests[0].header
        #expect(request.opcode == .loginRequest && request.isImmediate)
        #expect(request.loginFlags == LoginFlags(current: .operationalNegotiation, next: .fullFeature))
        #expect(request.initiatorTaskTag == 0x77 && request.connectionID == 3 && request.tsih == 0)
        #expect(request.cmdSN == 0xFFFF_FFFF && request.expStatSN == 0)
        #expect(request.isid == .random(0x123456, qualifier: 1))
        #expect(result.tsih == 0x1234 && accepted.tsih == 0x1234)
        #expect(result.cmdSN == 0xFFFF_FFFF)
        #expect(result.expStatSN == 0xFFFF_FFFF && accepted.statSN == 0xFFFF_FFFF)
        #expect(result.expCmdSN == 1 && result.maxCmdSN == 32)
        #expect(result.portalGroupTag == 1)
        #expect(result.authenticatedWith == nil && accepted.authenticatedName == nil)
        #expect(accepted.identity.targetName == "iqn.2026-11.org.example:array")
        #expect(accepted.identity.cmdSN == 0xFFFF_FFFF && accepted.identity.connectionID == 3)
        expectMirrored(result.parameters, accepted.parameters)
    }

    /// Both ends must believe the same, seen from their own side.
    private func expectMirrored(_ initiator: NegotiatedParameters, _ target: NegotiatedParameters) {
        var mirrored = target
        swap(&mirrored.maxRecvDataSegmentByteCount, &mirrored.maxSendDataSegmentByteCount)
        #expect(initiator == mirrored)
    }

    @Test func `Aliases and the portal group tag reach the other side`() {
        var settings = LoginPair.settings
        settings.initiatorAlias = "der Rechner"
        var pair = LoginPair(settings, grant: TargetLoginGrant(portalGroupTag: 0xBEEF, targetAlias: "das Regal"))
        guard case .finished(let result, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(result.portalGroupTag == 0xBEEF && result.targetAlias == "das Regal")
        #expect(accepted.identity.initiatorAlias == "der Rechner")
    }

    struct Combination {
        var chap: Bool, mutual: Bool, targetWantsCHAP: Bool, headerDigest: [DigestKind], targetDigests: [DigestKind]
    }

    static let combinations: [Combination] = {
        var all: [Combination] = []
        for chap in [false, true] {
            for mutual in chap ? [false, true] : [false] {
                for wants in [false, true] {
                    for offer: [DigestKind] in [[.none], [.crc32c], [.crc32c, .none], [.none, .crc32c]] {
                        for able: [DigestKind] in [[.none], [.crc32c], [.none, .crc32c]] {
                            all.append(Combination(chap: chap, mutual: mutual, targetWantsCHAP: wants, headerDigest: offer, targetDigests: able))
                        }
                    }
                }
            }
        }
        return all
    }()

    @Test func `Every combination of CHAP and digests ends as the RFC says`() {
        for combination in Self.combinations {
            var settings = LoginPair.settings
            if combination.chap { settings.chap = CHAPCredentials(identity: Self.host, mutual: combination.mutual ? Self.array : nil) }
            settings.operational.headerDigest = combination.headerDigest
            settings.operational.dataDigest = combination.headerDigest
            var grant = TargetLoginGrant()
            grant.operational.headerDigest = combination.targetDigests
            grant.operational.dataDigest = combination.targetDigests
            if combination.targetWantsCHAP { grant.authentication = .chap(initiators: [Self.host], own: Self.array) }
            var pair = LoginPair(settings, grant: grant)
            let outcome = pair.run()

            let authenticates = combination.targetWantsCHAP == combination.chap || (combination.chap && !combination.mutual)
            let digest = combination.headerDigest.first { combination.targetDigests.contains($0) }
            let digestsMeet = digest != nil || combination.headerDigest.contains(.none)
            switch outcome {
            case .finished(let result, let accepted):
                #expect(authenticates && digestsMeet, "\(combination)")
                #expect(result.parameters.headerDigest == digest ?? .none, "\(combination)")
                #expect(result.parameters.dataDigest == digest ?? .none, "\(combination)")
                let proves = combination.chap && combination.targetWantsCHAP
                #expect(result.authenticatedWith == (proves ? .sha3_256 : nil), "\(combination)")
                #expect(accepted.authenticatedName == (proves ? "host" : nil), "\(combination)")
                #expect((pair.requested("CHAP_I") != nil) == (proves && combination.mutual))
                expectMirrored(result.parameters, accepted.parameters)
            case .failed(let failure, let refusal):
                if !authenticates {
                    #expect(failure == .refused(.authenticationFailure), "\(combination)")
                    #expect(refusal?.status == .authenticationFailure, "\(combination)")
                } else {
                    #expect(!digestsMeet, "\(combination)")
                    guard case .negotiation(let error) = failure else {
                        Issue.record("\(combination): \(failure)")
                        continue
                    }
                    #expect(error.key == "HeaderDigest" && error.value == "Reject" && error.expected == "CRC32C")
                }
            case .redirected:
                Issue.record("nobody redirected")
            }
        }
    }

    @Test func `Numbers and booleans are agreed by their rules, whoever wants less`() {
        for flip in [false, true] {
            var low = OperationalSettings()
            low.maxConnections = 2
            low.maxBurstByteCount = 65_536
            low.firstBurstByteCount = 4096
            low.defaultTime2Wait = 1
            low.defaultTime2Retain = 3
            low.maxOutstandingR2T = 2
            low.errorRecoveryLevel = 1
            low.maxRecvDataSegmentByteCount = 1024
            low.initialR2T = true
            low.immediateData = false
            low.dataPDUInOrder = false
            low.dataSequenceInOrder = true
            var high = OperationalSettings()
            high.maxConnections = 8
            high.maxBurstByteCount = 16_777_215
            high.firstBurstByteCount = 1_048_576
            high.defaultTime2Wait = 3600
            high.defaultTime2Retain = 3600
            high.maxOutstandingR2T = 65_535
            high.errorRecoveryLevel = 2
            high.maxRecvDataSegmentByteCount = 16_777_215
            high.initialR2T = false
            high.immediateData = true
            high.dataPDUInOrder = false
            high.dataSequenceInOrder = false
            var settings = LoginPair.settings
            settings.operational = flip ? low : high
            var pair = LoginPair(settings, grant: TargetLoginGrant(operational: flip ? high : low))
            guard case .finished(let result, let accepted) = pair.run() else {
                Issue.record("the login did not finish")
                return
            }
            var expected = NegotiatedParameters()
            expected.maxConnections = 2
            expected.initialR2T = true
            expected.immediateData = false
            expected.maxRecvDataSegmentByteCount = flip ? 1024 : 16_777_215
            expected.maxSendDataSegmentByteCount = flip ? 16_777_215 : 1024
            expected.maxBurstByteCount = 65_536
            expected.firstBurstByteCount = 4096
            expected.defaultTime2Wait = 3600
            expected.defaultTime2Retain = 3
            expected.maxOutstandingR2T = 2
            expected.dataPDUInOrder = false
            expected.dataSequenceInOrder = true
            expected.errorRecoveryLevel = 1
            #expect(result.parameters == expected)
            expectMirrored(result.parameters, accepted.parameters)
        }
    }

    @Test(arguments: CHAPAlgorithm.allCases)
    func `Each algorithm works alone, mutually`(algorithm: CHAPAlgorithm) {
        var settings = LoginPair.settings
        settings.chap = CHAPCredentials(identity: Self.host, mutual: Self.array, algorithms: [algorithm])
        var pair = LoginPair(
            settings, grant: TargetLoginGrant(authentication: .chap(initiators: [Self.array, Self.host], own: Self.array)))
        guard case .finished(let result, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(result.authenticatedWith == algorithm && accepted.authenticatedName == "host")
        #expect(pair.requested("CHAP_A") == "\(algorithm.rawValue)")
        #expect(pair.requested("AuthMethod") == "CHAP")
    }

    @Test func `The target's preference picks among the algorithms that are offered`() {
        var settings = LoginPair.settings
        settings.chap = CHAPCredentials(identity: Self.host, algorithms: [.md5, .sha1, .sha256])
        var pair = LoginPair(
            settings, grant: TargetLoginGrant(authentication: .chap(initiators: [Self.host], own: nil, algorithms: [.sha3_256, .sha1, .md5])))
        guard case .finished(let result, _) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.requested("CHAP_A") == "5,6,7")
        #expect(result.authenticatedWith == .sha1)
    }

    @Test func `The CHAP response is the hash over identifier, secret and challenge`() throws {
        var settings = LoginPair.settings
        settings.chap = CHAPCredentials(identity: Self.host, algorithms: [.sha256])
        var pair = LoginPair(settings, grant: TargetLoginGrant(authentication: .chap(initiators: [Self.host], own: nil)))
        guard case .finished = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        let identifier = try #require(pair.responded("CHAP_I").flatMap { UInt8($0) })
        let challenge = try #require(pair.responded("CHAP_C").flatMap { TextValue.binary($0, limit: 1024) })
        let response = try #require(pair.requested("CHAP_R").flatMap { TextValue.binary($0, limit: 64) })
        #expect(challenge.count == 32)
        #expect(response == WireCryptography().digest(.sha256, of: [identifier] + Self.hostSecret.bytes + challenge))
        #expect(pair.requested("CHAP_N") == "host")
    }

    @Test func `A discovery session needs no target name and offers only what it needs`() {
        var settings = LoginPair.settings
        settings.sessionType = .discovery
        settings.targetName = nil
        var pair = LoginPair(settings)
        guard case .finished(_, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(accepted.identity.sessionType == .discovery && accepted.identity.targetName == nil)
        #expect(pair.requested("SessionType") == "Discovery")
        #expect(pair.requested("MaxBurstLength") == nil && pair.requested("InitialR2T") == nil)
        #expect(pair.requested("MaxRecvDataSegmentLength") == "262144")
        #expect(pair.responded("TargetPortalGroupTag") == nil)
    }

    @Test func `Keys that mean nothing in a discovery session are Irrelevant`() {
        var settings = LoginPair.settings
        settings.sessionType = .discovery
        settings.targetName = nil
        var pair = LoginPair(settings)
        pair.tamperRequest = { pdu, index in if index == 0 { pdu.add("MaxBurstLength=65536\0") } }
        guard case .finished(_, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.responded("MaxBurstLength") == "Irrelevant")
        #expect(accepted.parameters.maxBurstByteCount == 262_144)
    }

    @Test func `A further connection negotiates its own keys only`() {
        var settings = LoginPair.settings
        settings.tsih = 0x55
        settings.connectionID = 1
        settings.operational.dataDigest = [.crc32c]
        settings.sessionParameters.maxBurstByteCount = 12_288
        settings.sessionParameters.maxConnections = 4
        var session = NegotiatedParameters()
        session.maxBurstByteCount = 12_288
        session.maxConnections = 4
        var grant = TargetLoginGrant(sessionParameters: session)
        grant.operational.dataDigest = [.none, .crc32c]
        var pair = LoginPair(settings, grant: grant)
        pair.admission = .admit(tsih: 0x55, expCmdSN: 1, maxCmdSN: 2)
        guard case .finished(let result, let accepted) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.requested("MaxBurstLength") == nil && pair.requested("SessionType") == nil)
        #expect(accepted.identity.tsih == 0x55 && result.tsih == 0x55)
        #expect(result.parameters.dataDigest == .crc32c)
        #expect(result.parameters.maxBurstByteCount == 12_288 && result.parameters.maxConnections == 4)
        expectMirrored(result.parameters, accepted.parameters)
    }

    @Test func `A leading-only key on a further connection is rejected`() {
        var settings = LoginPair.settings
        settings.tsih = 0x55
        var pair = LoginPair(settings, grant: TargetLoginGrant(sessionParameters: NegotiatedParameters()))
        pair.admission = .admit(tsih: 0x55, expCmdSN: 1, maxCmdSN: 2)
        pair.tamperRequest = { pdu, index in if index == 0 { pdu.add("MaxBurstLength=65536\0") } }
        guard case .finished = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.responded("MaxBurstLength") == "Reject")
    }

    @Test func `Obsolete, newer and foreign keys each get their answer`() {
        let answers = [
            ("IFMarker=Yes", "IFMarker", "No"), ("OFMarker=Yes", "OFMarker", "No"), ("IFMarkInt=2048~8192", "IFMarkInt", "Reject"),
            ("OFMarkInt=1", "OFMarkInt", "Reject"), ("iSCSIProtocolLevel=2", "iSCSIProtocolLevel", "1"),
            ("iSCSIProtocolLevel=0", "iSCSIProtocolLevel", "0"), ("iSCSIProtocolLevel=32", "iSCSIProtocolLevel", "Reject"),
            ("TaskReporting=FastAbort,RFC3720", "TaskReporting", "RFC3720"), ("TaskReporting=FastAbort", "TaskReporting", "Reject"),
            ("X-org.example.speed=warp", "X-org.example.speed", "NotUnderstood"), ("X#NodeArchitecture=z", "X#NodeArchitecture", "NotUnderstood"),
            ("SendTargets=All", "SendTargets", "NotUnderstood"),
        ]
        for (text, key, expected) in answers {
            var pair = LoginPair(LoginPair.settings)
            pair.tamperRequest = { pdu, index in if index == 0 { pdu.add(text + "\0") } }
            _ = pair.run()
            #expect(pair.responded(key) == expected, "\(text)")
        }
    }

    @Test func `The initiator answers what the target offers of its own, and then moves on`() {
        var pair = LoginPair(LoginPair.settings)
        pair.tamperResponse = { pdu, index in
            guard index == 0 else { return }
            pdu.header.loginFlags = LoginFlags(current: .operationalNegotiation, next: nil)
            pdu.header.tsih = 0
            pdu.add("IFMarker=No\0X-org.example.x=1\0")
        }
        // The target believes that it is done: only what the initiator says next matters here.
        _ = pair.run()
        #expect(pair.requests.count == 2)
        #expect(pair.requested("IFMarker") == "No")
        #expect(pair.requested("X-org.example.x") == "NotUnderstood")
        #expect(pair.requests[1].header.loginFlags == LoginFlags(current: .operationalNegotiation, next: .fullFeature))
        #expect(pair.requests[1].header.expStatSN == 0xFFFF_FFFF)
    }

    @Test func `Keys that the target leaves unanswered count as refused`() {
        var settings = LoginPair.settings
        settings.operational.headerDigest = [.crc32c, .none]
        settings.operational.maxBurstByteCount = 1_000_000
        settings.operational.defaultTime2Wait = 9
        settings.operational.maxConnections = 4
        settings.operational.errorRecoveryLevel = 2
        var pair = LoginPair(settings)
        pair.tamperResponse = { pdu, _ in pdu.say("TargetPortalGroupTag=1\0") }
        guard case .finished(let result, _) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        var expected = NegotiatedParameters()
        expected.maxRecvDataSegmentByteCount = 262_144
        expected.defaultTime2Wait = 9
        #expect(result.parameters == expected)
    }

    @Test(arguments: ["Reject", "NotUnderstood", "Irrelevant"])
    func `Constants instead of values leave the defaults`(constant: String) {
        var pair = LoginPair(LoginPair.settings)
        pair.tamperResponse = { pdu, _ in
            for key in ["HeaderDigest", "MaxBurstLength", "InitialR2T", "ImmediateData", "MaxOutstandingR2T", "DefaultTime2Wait"] {
                pdu.replace(key, with: constant)
            }
        }
        guard case .finished(let result, _) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(result.parameters.maxBurstByteCount == 262_144)
        #expect(result.parameters.initialR2T && result.parameters.immediateData && result.parameters.maxOutstandingR2T == 1)
    }

    @Test func `FirstBurstLength never exceeds MaxBurstLength`() {
        var pair = LoginPair(LoginPair.settings)
        pair.tamperResponse = { pdu, _ in
            pdu.replace("MaxBurstLength", with: "1024")
            pdu.replace("FirstBurstLength", with: "65536")
        }
        guard case .finished(let result, _) = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(result.parameters.maxBurstByteCount == 1024 && result.parameters.firstBurstByteCount == 1024)
    }

    @Test func `A long answer comes in pieces, each asked for by an empty request`() {
        var pair = LoginPair(LoginPair.settings)
        let many = (0..<200).map { "X-\($0)-\(String(repeating: "y", count: 40))=1\0" }.joined()
        pair.tamperRequest = { pdu, index in if index == 0 { pdu.add(many) } }
        guard case .finished = pair.run() else {
            Issue.record("the login did not finish")
            return
        }
        #expect(pair.responses.count > 2)
        #expect(pair.responses[0].header.loginFlags.continues && pair.responses[0].data.count == 8192)
        #expect(pair.requests[1].data.isEmpty && !pair.requests[1].header.loginFlags.isTransit)
        #expect(pair.responses.last?.header.loginFlags.nextStage == .fullFeature)
    }

    @Test func `A request's text in pieces is put together before it is looked at`() {
        var first: PDU?
        var initiator = InitiatorLogin(settings: LoginPair.settings, cryptography: WireCryptography())
        if case .send(let pdu) = initiator.start() { first = pdu }
        guard let request = first else {
            Issue.record("a login begins with a request")
            return
        }
        var target = TargetLogin(cryptography: WireCryptography())
        // One byte at a time would be more exchanges than a login may have: pieces of ten.
        let pieces = stride(from: 0, to: request.data.count, by: 10).map { Array(request.data[$0..<min($0 + 10, request.data.count)]) }
        for (index, piece) in pieces.enumerated() {
            var header = request.header
            let isLast = index == pieces.count - 1
            if !isLast { header.loginFlags = LoginFlags(current: .operationalNegotiation, next: nil, continues: true) }
            let action = piece.withUnsafeBytes { target.received(header, data: $0) }
            if isLast {
                guard case .identify(let identity) = action else {
                    Issue.record("the names are known: \(action)")
                    return
                }
                #expect(identity.initiatorName == "iqn.2026-11.org.example:host")
            } else {
                guard case .send(let pdu) = action else {
                    Issue.record("a piece is answered: \(action)")
                    return
                }
                #expect(pdu.data.isEmpty && !pdu.header.loginFlags.isTransit)
            }
        }
    }
}
