import ISCSI
import Testing

@Suite struct LoginFailureTests {
    private static let host = CHAPIdentity(name: "host", secret: CHAPSecret(Array("host secret 1234".utf8)))
    private static let array = CHAPIdentity(name: "array", secret: CHAPSecret(Array("array secret 567".utf8)))

    /// The initiator's failure after the target's PDUs were changed.
    private func failure(
        _ settings: LoginSettings = LoginPair.settings, grant: TargetLoginGrant = TargetLoginGrant(),
        _ tamper: @escaping (inout PDU, Int) -> Void
    ) -> LoginFailure? {
        var pair = LoginPair(settings, grant: grant)
        pair.tamperResponse = tamper
        if case .failed(let failure, _) = pair.run() { return failure }
        return nil
    }

    /// The target's refusal after the initiator's PDUs were changed.
    private func refusal(
        _ settings: LoginSettings = LoginPair.settings, grant: TargetLoginGrant = TargetLoginGrant(),
        _ tamper: @escaping (inout PDU, Int) -> Void
    ) -> TargetLoginRefusal? {
        var pair = LoginPair(settings, grant: grant)
        pair.tamperRequest = tamper
        if case .failed(_, let refusal) = pair.run() { return refusal }
        return nil
    }

    private func chapSettings(mutual: Bool = false, algorithms: [CHAPAlgorithm] = CHAPAlgorithm.byStrength) -> LoginSettings {
        var settings = LoginPair.settings
        settings.chap = CHAPCredentials(identity: Self.host, mutual: mutual ? Self.array : nil, algorithms: algorithms)
        return settings
    }

    private var chapGrant: TargetLoginGrant {
        TargetLoginGrant(authentication: .chap(initiators: [Self.host], own: Self.array))
    }

    // MARK: fields of a response

    @Test func `Every wrong field of a response is named`() {
        #expect(failure { pdu, _ in pdu.header.opcode = .nopIn } == .unexpectedPDU(.nopIn))
        #expect(failure { pdu, _ in pdu.header.versionActive = 1 } == .field(.version, found: 1, expected: 0))
        #expect(failure { pdu, _ in pdu.header.initiatorTaskTag = 5 } == .field(.initiatorTaskTag, found: 5, expected: 0x77))
        #expect(failure { pdu, _ in pdu.header.tsih = 0 } == .field(.tsih, found: 0, expected: 1))
        let isid = failure { pdu, _ in pdu.header.isid = ISID(rawValue: 9) }
        #expect(isid == .field(.isid, found: 9, expected: 0x8012_3456_0001))
        var joining = LoginPair.settings
        joining.tsih = 7
        #expect(failure(joining) { pdu, _ in pdu.header.tsih = 8 } == .field(.tsih, found: 8, expected: 7))
        let statSN = failure(chapSettings(), grant: chapGrant) { pdu, index in if index == 1 { pdu.header.statSN = 5 } }
        #expect(statSN == .field(.statSN, found: 5, expected: 0xFFFF_FFFF))
    }

    @Test func `Stages that do not follow are refused by the initiator`() {
        let bad: [LoginFlags] = [
            LoginFlags(current: .securityNegotiation, next: .fullFeature),
            LoginFlags(current: .operationalNegotiation, next: .operationalNegotiation),
            LoginFlags(rawValue: 0x8B), LoginFlags(rawValue: 0xC7),
        ]
        for flags in bad { #expect(failure { pdu, _ in pdu.header.loginFlags = flags } == .stage(flags)) }
        let early = LoginFlags(current: .securityNegotiation, next: .operationalNegotiation)
        #expect(failure(chapSettings(), grant: chapGrant) { pdu, index in if index == 0 { pdu.header.loginFlags = early } } == .stage(early))
    }

    @Test func `Unreadable text is refused by the initiator`() {
        #expect(failure { pdu, _ in pdu.say("nonsense\0") } == .text(.missingEquals("nonsense")))
        #expect(failure { pdu, _ in pdu.say("A=1\0A=2\0") } == .text(.duplicateKey("A")))
    }

    @Test func `A target that never ends is left, however it goes about it`() {
        let staying = failure { pdu, _ in
            pdu.header.loginFlags = LoginFlags(current: .operationalNegotiation, next: nil)
            pdu.header.tsih = 0
            pdu.data = []
            pdu.header.dataSegmentByteCount = 0
        }
        // The harness's target ends first; a tireless one:
        #expect(staying != nil)
        var initiator = InitiatorLogin(settings: LoginPair.settings, cryptography: WireCryptography())
        guard case .send(let first) = initiator.start() else {
            Issue.record("a login begins with a request")
            return
        }
        for continues in [false, true] {
            var login = InitiatorLogin(settings: LoginPair.settings, cryptography: WireCryptography())
            _ = login.start()
            var count: UInt32 = 0
            var ended: LoginFailure?
            while ended == nil, count < 1000 {
                let header = BasicHeaderSegment.loginResponse(
                    LoginFlags(current: .operationalNegotiation, next: nil, continues: continues), isid: first.header.isid,
                    tsih: 0, tag: 0x77, numbers: ResponseNumbers(statSN: count, expCmdSN: 0, maxCmdSN: 0))
                let piece = [UInt8](repeating: UInt8(ascii: "A"), count: continues ? 3000 : 0)
                if case .failed(let failure) = piece.withUnsafeBytes({ login.received(header, data: $0) }) { ended = failure }
                count += 1
            }
            #expect(ended == (continues ? .text(.tooLong(byteCount: 66_000, limit: 65_536)) : .tooManyExchanges(65)))
            #expect(login.isOver)
        }
    }

    // MARK: answers

    @Test func `An illegal answer is an error that names key, value and what was expected`() {
        let cases: [(String, String, String)] = [
            ("MaxBurstLength", "16777215", "512 to 1048576"), ("MaxBurstLength", "0", "512 to 1048576"),
            ("MaxBurstLength", "big", "512 to 1048576"), ("FirstBurstLength", "262145", "512 to 262144"),
            ("MaxConnections", "2", "1"), ("MaxConnections", "0", "1"), ("DefaultTime2Wait", "1", "2 to 3600"),
            ("DefaultTime2Retain", "21", "0 to 20"), ("ErrorRecoveryLevel", "1", "0"), ("MaxOutstandingR2T", "9", "1 to 8"),
            ("InitialR2T", "yes", "Yes or No"), ("ImmediateData", "", "Yes or No"),
            ("DataPDUInOrder", "No", "Yes, because Yes was offered"), ("DataSequenceInOrder", "No", "Yes, because Yes was offered"),
            ("HeaderDigest", "CRC32C", "None"), ("DataDigest", "None,CRC32C", "None"),
            ("MaxRecvDataSegmentLength", "511", "512 to 16777215"), ("MaxRecvDataSegmentLength", "16777216", "512 to 16777215"),
            ("TargetPortalGroupTag", "65536", "0 to 65535"),
        ]
        for (key, value, expected) in cases {
            #expect(
                failure { pdu, _ in pdu.replace(key, with: value) }
                    == .negotiation(NegotiationError(key: key, value: value, expected: expected)), "\(key)=\(value)")
        }
        var settings = LoginPair.settings
        settings.operational.immediateData = false
        #expect(
            failure(settings) { pdu, _ in pdu.replace("ImmediateData", with: "Yes") }
                == .negotiation(NegotiationError(key: "ImmediateData", value: "Yes", expected: "No, because No was offered")))
    }

    @Test func `Settings that can't be offered fail before a byte is sent`() {
        func fault(_ change: (inout LoginSettings) -> Void) -> String? {
            var settings = LoginPair.settings
            change(&settings)
            var login = InitiatorLogin(settings: settings, cryptography: WireCryptography())
            guard case .failed(.invalidSetting(let error)) = login.start() else { return nil }
            return error.key
        }
        #expect(fault { $0.initiatorName = "" } == "InitiatorName")
        #expect(fault { $0.targetName = nil } == "TargetName")
        #expect(fault { $0.operational.headerDigest = [] } == "HeaderDigest")
        #expect(fault { $0.operational.maxConnections = 0 } == "MaxConnections")
        #expect(fault { $0.operational.maxRecvDataSegmentByteCount = 1 << 24 } == "MaxRecvDataSegmentLength")
        #expect(fault { $0.operational.errorRecoveryLevel = 3 } == "ErrorRecoveryLevel")
        #expect(fault { $0.operational.firstBurstByteCount = 2_000_000 } == "FirstBurstLength")
        #expect(fault { _ in } == nil)
    }

    // MARK: statuses

    @Test func `Every status of the RFC is told in words`() {
        let codes: [UInt16] = [
            0x0200, 0x0201, 0x0202, 0x0203, 0x0204, 0x0205, 0x0206, 0x0207, 0x0208, 0x0209, 0x020A, 0x020B, 0x0300, 0x0301, 0x0302,
        ]
        for code in codes {
            let status = LoginStatus(rawValue: code)
            var pair = LoginPair(LoginPair.settings)
            pair.decision = { _ in .reject(status) }
            guard case .failed(let failure, let refusal) = pair.run() else {
                Issue.record("status \(code) was taken")
                continue
            }
            #expect(failure == .refused(status) && refusal == TargetLoginRefusal(status: status, failure: nil))
            #expect(!status.description.contains("0x") && failure.description.contains(status.description))
            #expect(status.category == (code < 0x300 ? .initiatorError : .targetError))
        }
        #expect(LoginStatus(rawValue: 0x0999).category == nil)
        #expect(LoginStatus(rawValue: 0x0999).description == "login status 0x0999")
    }

    @Test func `A session that can't be made is refused at the end`() {
        var pair = LoginPair(LoginPair.settings)
        pair.admission = .reject(.outOfResources)
        guard case .failed(.refused(.outOfResources), _) = pair.run() else {
            Issue.record("the login finished")
            return
        }
    }

    // MARK: redirection

    @Test func `A redirection leads to the address that the target names`() {
        for (address, isPermanent) in [
            (TargetAddress(host: "10.0.0.9", port: 3261, portalGroupTag: 2), false),
            (TargetAddress(host: "2001:db8::9", port: 3260), true), (TargetAddress(host: "array.example.org", port: 1), false),
        ] {
            var pair = LoginPair(LoginPair.settings)
            pair.decision = { _ in .redirect(address, isPermanent: isPermanent) }
            guard case .redirected(let redirection) = pair.run() else {
                Issue.record("no redirection")
                continue
            }
            #expect(redirection == LoginRedirection(address: address, isPermanent: isPermanent))
        }
    }

    @Test func `Of several addresses the first that can be read is taken, and none at all is a failure`() {
        func outcome(_ text: String) -> LoginPair.Outcome {
            var pair = LoginPair(LoginPair.settings)
            pair.decision = { _ in .redirect(TargetAddress(host: "x"), isPermanent: false) }
            pair.tamperResponse = { pdu, _ in pdu.say(text) }
            return pair.run()
        }
        guard case .redirected(let redirection) = outcome("TargetAddress=::1\0TargetAddress=[::1]:9,1\0TargetAddress=10.0.0.1\0") else {
            Issue.record("no redirection")
            return
        }
        #expect(redirection.address == TargetAddress(host: "::1", port: 9, portalGroupTag: 1))
        guard case .failed(.redirectedNowhere(nil), _) = outcome("") else {
            Issue.record("redirected without an address")
            return
        }
        guard case .failed(.redirectedNowhere(":"), _) = outcome("TargetAddress=:\0") else {
            Issue.record("redirected to an unreadable address")
            return
        }
    }

    // MARK: CHAP

    @Test func `A wrong secret, an unknown name and no CHAP at all are authentication failures`() {
        var wrong = chapSettings()
        wrong.chap?.identity.secret = CHAPSecret(Array("another secret".utf8))
        #expect(refusal(wrong, grant: chapGrant) { _, _ in } == TargetLoginRefusal(status: .authenticationFailure, failure: .chap(.wrongResponse)))
        var unknown = chapSettings()
        unknown.chap?.identity.name = "nobody"
        #expect(refusal(unknown, grant: chapGrant) { _, _ in } == TargetLoginRefusal(status: .authenticationFailure, failure: .chap(.unknownName("nobody"))))
        #expect(refusal(grant: chapGrant) { _, _ in }?.status == .authenticationFailure)
        let evading = refusal(chapSettings(), grant: chapGrant) { pdu, _ in pdu.replace("AuthMethod", with: "None") }
        #expect(evading?.status == .authenticationFailure)
        let silent = refusal(chapSettings(), grant: chapGrant) { pdu, _ in pdu.remove("AuthMethod") }
        #expect(silent?.status == .authenticationFailure)
    }

    @Test func `CHAP can't be skipped by jumping to the next stage`() {
        let jump = refusal(chapSettings(), grant: chapGrant) { pdu, index in
            if index == 1 { pdu.header.loginFlags = LoginFlags(current: .operationalNegotiation, next: .fullFeature) }
        }
        #expect(jump?.status == .initiatorError)
        // Asking for the next stage while the challenge is open only gets the challenge.
        var pair = LoginPair(chapSettings(), grant: chapGrant)
        pair.tamperRequest = { pdu, index in
            if index < 2 { pdu.header.loginFlags = LoginFlags(current: .securityNegotiation, next: .fullFeature) }
        }
        _ = pair.run()
        #expect(pair.responses.prefix(2).allSatisfy { !$0.header.loginFlags.isTransit })
    }

    @Test func `Missing and malformed CHAP keys are named on both sides`() {
        for key in ["CHAP_A", "CHAP_I", "CHAP_C"] {
            #expect(failure(chapSettings(), grant: chapGrant) { pdu, index in if index == 1 { pdu.remove(key) } } == .chap(.missingKey(key)))
        }
        for (key, value) in [("CHAP_I", "256"), ("CHAP_I", "x"), ("CHAP_C", "abc"), ("CHAP_C", "0x")] {
            #expect(failure(chapSettings(), grant: chapGrant) { pdu, index in if index == 1 { pdu.replace(key, with: value) } } == .chap(.malformedValue(key: key)), "\(key)=\(value)")
        }
        #expect(failure(chapSettings(), grant: chapGrant) { pdu, _ in pdu.replace("CHAP_A", with: "9") } == .chap(.noCommonAlgorithm("9")))
        for key in ["CHAP_N", "CHAP_R"] {
            #expect(refusal(chapSettings(), grant: chapGrant) { pdu, _ in pdu.remove(key) }?.failure == .chap(.missingKey(key)))
        }
        for value in ["0x00", "0b", "hello", "0x" + String(repeating: "00", count: 33)] {
            #expect(refusal(chapSettings(), grant: chapGrant) { pdu, _ in pdu.replace("CHAP_R", with: value) }?.failure == .chap(.malformedValue(key: "CHAP_R")))
        }
        #expect(refusal(chapSettings(), grant: chapGrant) { pdu, _ in pdu.replace("CHAP_A", with: "1,2") }?.failure == .chap(.noCommonAlgorithm("1,2")))
        #expect(refusal(chapSettings(mutual: true), grant: chapGrant) { pdu, _ in pdu.remove("CHAP_C") }?.failure == .chap(.missingKey("CHAP_C")))
    }

    @Test func `An algorithm that was not offered is not taken from the target`() {
        #expect(failure(chapSettings(algorithms: [.sha256]), grant: chapGrant) { pdu, _ in pdu.replace("CHAP_A", with: "5") } == .chap(.noCommonAlgorithm("5")))
    }

    @Test func `A target that does not prove itself is refused`() {
        let mutual = chapSettings(mutual: true)
        #expect(failure(mutual, grant: chapGrant) { pdu, _ in
            pdu.remove("CHAP_N")
            pdu.remove("CHAP_R")
        } == .chap(.mutualAuthenticationMissing))
        #expect(failure(mutual, grant: chapGrant) { pdu, _ in pdu.replace("CHAP_N", with: "impostor") } == .chap(.wrongMutualName("impostor")))
        #expect(failure(mutual, grant: chapGrant) { pdu, _ in
            pdu.replace("CHAP_R", with: "0x" + String(repeating: "00", count: 32))
        } == .chap(.wrongResponse))
        #expect(failure(mutual, grant: chapGrant) { pdu, _ in pdu.remove("CHAP_R") } == .chap(.missingKey("CHAP_R")))
        #expect(failure(mutual, grant: chapGrant) { pdu, _ in pdu.replace("AuthMethod", with: "None") } == .authenticationMethod(offered: "CHAP", answered: "None"))
        let grant = TargetLoginGrant(authentication: .chap(initiators: [Self.host], own: nil))
        #expect(refusal(mutual, grant: grant) { _, _ in }?.failure == .chap(.mutualAuthenticationMissing))
    }

    @Test func `A reflected challenge is refused on both sides`() {
        var pair = LoginPair(chapSettings(mutual: true), grant: chapGrant)
        // Both sides draw the same bytes, as a reflecting peer would make it look.
        pair.targetCryptography.constantByte = 0x42
        pair.initiatorCryptography.constantByte = 0x42
        guard case .failed(.chap(.reflectedChallenge), _) = pair.run() else {
            Issue.record("the initiator answered its own challenge")
            return
        }
        var sent: String?
        var target = LoginPair(chapSettings(mutual: true), grant: chapGrant)
        target.tamperResponse = { pdu, _ in sent = (try? TextParameters(parsing: pdu.data))?["CHAP_C"] ?? sent }
        target.tamperRequest = { pdu, index in if index == 2, let sent { pdu.replace("CHAP_C", with: sent) } }
        guard case .failed(_, let why) = target.run() else {
            Issue.record("the target answered its own challenge")
            return
        }
        #expect(why?.failure == .chap(.reflectedChallenge))
    }

    @Test func `One secret for both directions is refused on both sides`() {
        var settings = chapSettings(mutual: true)
        settings.chap?.mutual?.secret = Self.host.secret
        var login = InitiatorLogin(settings: settings, cryptography: WireCryptography())
        guard case .failed(.chap(.sameSecretBothWays)) = login.start() else {
            Issue.record("the initiator began")
            return
        }
        let grant = TargetLoginGrant(authentication: .chap(initiators: [Self.host], own: CHAPIdentity(name: "array", secret: Self.host.secret)))
        #expect(refusal(chapSettings(mutual: true), grant: grant) { _, _ in }?.failure == .chap(.sameSecretBothWays))
    }

    @Test func `A hash that the platform refuses is named`() {
        var pair = LoginPair(chapSettings(algorithms: [.md5]), grant: chapGrant)
        pair.initiatorCryptography.unavailable = [.md5]
        guard case .failed(.chap(.digestUnavailable(.md5)), _) = pair.run() else {
            Issue.record("MD5 was computed")
            return
        }
    }

    @Test func `A short secret is told and never printed`() {
        #expect(CHAPSecret(Array("short".utf8)).strength == .short(byteCount: 5))
        #expect(CHAPSecret([]).strength == .empty)
        #expect(Self.host.secret.strength == .sufficient)
        var dumped = ""
        dump(CHAPCredentials(identity: Self.host), to: &dumped)
        #expect(!"\(Self.host) \(String(reflecting: Self.host))".contains("104") && !dumped.contains("104") && dumped.contains("(secret)"))
    }

    // MARK: requests

    @Test func `Every wrong request is refused with the status that the RFC has for it`() {
        #expect(refusal { pdu, _ in pdu.header.opcode = .scsiCommand }?.status == .invalidDuringLogin)
        #expect(refusal { pdu, _ in pdu.header.versionMin = 1 }?.status == .unsupportedVersion)
        #expect(refusal { pdu, _ in pdu.remove("InitiatorName") }?.status == .missingParameter)
        #expect(refusal { pdu, _ in pdu.remove("TargetName") }?.status == .missingParameter)
        #expect(refusal { pdu, _ in pdu.replace("SessionType", with: "Chat") }?.status == .sessionTypeNotSupported)
        #expect(refusal { pdu, _ in pdu.header.loginFlags = LoginFlags(current: .fullFeature, next: nil) }?.status == .initiatorError)
        #expect(refusal { pdu, _ in pdu.header.loginFlags = LoginFlags(rawValue: 0x08) }?.status == .initiatorError)
        #expect(refusal { pdu, _ in pdu.header.loginFlags = LoginFlags(rawValue: 0x86) }?.status == .initiatorError)
        #expect(refusal { pdu, _ in pdu.header.loginFlags = LoginFlags(current: .operationalNegotiation, next: .securityNegotiation) }?.status == .initiatorError)
        #expect(refusal { pdu, _ in pdu.header.loginFlags = LoginFlags(current: .operationalNegotiation, next: .fullFeature, continues: true) }?.status == .initiatorError)
        #expect(refusal { pdu, _ in pdu.say("garbage") }?.failure == .text(.unterminated))
        #expect(refusal { pdu, _ in pdu.add("MaxRecvDataSegmentLength=1\0") }?.failure == .text(.duplicateKey("MaxRecvDataSegmentLength")))
        #expect(refusal { pdu, _ in pdu.replace("MaxRecvDataSegmentLength", with: "1") }?.status == .initiatorError)
    }

    @Test func `Later requests must repeat the fields of the first`() {
        let changes: [(inout BasicHeaderSegment) -> Void] = [
            { $0.initiatorTaskTag = 1 }, { $0.isid = ISID(rawValue: 1) }, { $0.tsih = 9 }, { $0.connectionID = 9 }, { $0.cmdSN = 9 },
        ]
        for (index, change) in changes.enumerated() {
            let refused = refusal(chapSettings(), grant: chapGrant) { pdu, request in if request == 1 { change(&pdu.header) } }
            guard case .field? = refused?.failure else {
                Issue.record("change \(index) was taken")
                continue
            }
        }
    }

    @Test func `Offers out of range are rejected and the default stays`() {
        for (key, value) in [("MaxBurstLength", "1"), ("MaxConnections", "0"), ("InitialR2T", "maybe"), ("HeaderDigest", "MD5")] {
            var pair = LoginPair(LoginPair.settings)
            pair.tamperRequest = { pdu, _ in pdu.replace(key, with: value) }
            guard case .finished(_, let accepted) = pair.run() else {
                Issue.record("\(key)=\(value) ended the login")
                continue
            }
            #expect(pair.responded(key) == "Reject")
            #expect(accepted.parameters.maxBurstByteCount == (key == "MaxBurstLength" ? 262_144 : 1_048_576))
        }
    }

    @Test func `No key is negotiated twice in one login, on either side`() {
        let staying = LoginFlags(current: .operationalNegotiation, next: nil)
        let error = NegotiationError(key: "MaxBurstLength", value: "65536", expected: "no second negotiation in one login")

        var target = TargetLogin(cryptography: WireCryptography())
        let request = BasicHeaderSegment.loginRequest(
            staying, isid: ISID(rawValue: 1), tsih: 0, connectionID: 0, tag: 0, cmdSN: 0, expStatSN: 0)
        let first = Array("InitiatorName=a\0TargetName=b\0MaxBurstLength=65536\0".utf8)
        _ = first.withUnsafeBytes { target.received(request, data: $0) }
        _ = target.identified(.accept(TargetLoginGrant()))
        let again = Array("MaxBurstLength=65536\0".utf8)
        guard case .refused(_, let why) = again.withUnsafeBytes({ target.received(request, data: $0) }) else {
            Issue.record("the target negotiated a key twice")
            return
        }
        #expect(why == TargetLoginRefusal(status: .initiatorError, failure: .negotiation(error)))

        var initiator = InitiatorLogin(settings: LoginPair.settings, cryptography: WireCryptography())
        _ = initiator.start()
        for statSN in UInt32(0)...1 {
            let response = BasicHeaderSegment.loginResponse(
                staying, isid: LoginPair.settings.isid, tsih: 0, tag: 0x77,
                numbers: ResponseNumbers(statSN: statSN, expCmdSN: 0, maxCmdSN: 0))
            let action = again.withUnsafeBytes { initiator.received(response, data: $0) }
            switch (statSN, action) {
            case (0, .send): continue
            case (1, .failed(let failure)): #expect(failure == .negotiation(error))
            default: Issue.record("response \(statSN) led to \(action)")
            }
        }
    }

    @Test func `A target that wants proof says nothing of its parameters without it`() {
        var target = TargetLogin(cryptography: WireCryptography())
        let request = BasicHeaderSegment.loginRequest(
            LoginFlags(current: .operationalNegotiation, next: nil), isid: ISID(rawValue: 1), tsih: 0, connectionID: 0, tag: 0,
            cmdSN: 0, expStatSN: 0)
        let text = Array("InitiatorName=a\0TargetName=b\0MaxBurstLength=65536\0".utf8)
        _ = text.withUnsafeBytes { target.received(request, data: $0) }
        guard case .refused(let pdu, let why) = target.identified(.accept(chapGrant)) else {
            Issue.record("an unproved initiator was answered")
            return
        }
        #expect(pdu.data.isEmpty && pdu.header.loginStatus == .authenticationFailure && why.status == .authenticationFailure)
    }

    @Test func `An initiator that never ends is refused`() {
        var target = TargetLogin(cryptography: WireCryptography())
        var status: LoginStatus?
        for _ in 0..<1000 where status == nil {
            let header = BasicHeaderSegment.loginRequest(
                LoginFlags(current: .operationalNegotiation, next: nil), isid: ISID(rawValue: 1), tsih: 0, connectionID: 0, tag: 0,
                cmdSN: 0, expStatSN: 0)
            let text = Array("InitiatorName=a\0TargetName=b\0".utf8)
            var action = text.withUnsafeBytes { target.received(header, data: $0) }
            if case .identify = action { action = target.identified(.accept(TargetLoginGrant())) }
            if case .refused(_, let why) = action { status = why.status }
        }
        #expect(status == .initiatorError)
        #expect(target.isOver)
        let header = BasicHeaderSegment()
        guard case .failed = target.received(header, data: UnsafeRawBufferPointer(start: nil, count: 0)) else {
            Issue.record("an ended login went on")
            return
        }
    }
}
