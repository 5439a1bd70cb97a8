import ISCSI

/// Both logins with a middleman: each PDU passes as it is, is changed, or is replaced by the script's own. Promises:
/// a login is over after a bounded number of exchanges, and without the secret nobody gets in.
@Sendable
func fuzzLogin(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let flags = script.byte()
    var settings = LoginSettings(
        initiatorName: fuzzInitiatorName, targetName: flags & 1 != 0 ? nil : fuzzTargetName, isid: .random(1, qualifier: 1))
    if flags & 1 != 0 { settings.sessionType = .discovery }
    if flags & 2 != 0 { settings.chap = CHAPCredentials(identity: fuzzSecret, mutual: flags & 4 != 0 ? fuzzMutualSecret : nil) }
    if flags & 8 != 0 {
        settings.operational.headerDigest = [.crc32c, .none]
        settings.operational.dataDigest = [.crc32c]
    }
    if flags & 0x40 != 0 { settings.tsih = 5 }
    var initiator = InitiatorLogin(settings: settings, cryptography: FuzzCryptography(seed: 3))
    var target = TargetLogin(cryptography: FuzzCryptography(seed: 9))
    var link = LoginLink(flags: flags)
    var action = initiator.start()
    for _ in 0..<300 {
        guard case .send(let request) = action else { break }
        guard let answer = link.answer(to: script.isAtEnd ? request : changed(request, &script), by: &target) else { break }
        let passed = script.isAtEnd ? answer : changed(answer, &script)
        action = passed.data.withUnsafeBytes { initiator.received(passed.header, data: $0) }
    }
    if case .send = action { require(target.isOver || initiator.isOver, "a login ends") }
    if case .finished(let result) = action {
        let parameters = result.parameters
        require((512...16_777_215).contains(parameters.maxSendDataSegmentByteCount), "MaxRecvDataSegmentLength is in range")
        require((512...16_777_215).contains(parameters.maxBurstByteCount), "MaxBurstLength is in range")
        require(parameters.maxOutstandingR2T >= 1 && parameters.maxConnections >= 1, "counts are at least 1")
        if flags & 4 != 0, flags & 2 != 0 { require(result.authenticatedWith != nil, "mutual CHAP is not left out") }
    }
    playTarget(&script, flags: flags)
}

/// The target alone, against requests of the script.
private func playTarget(_ script: inout ByteScript, flags: UInt8) {
    var target = TargetLogin(cryptography: FuzzCryptography(seed: 9))
    var link = LoginLink(flags: flags)
    var exchanges = 0
    while !script.isAtEnd {
        var header = BasicHeaderSegment.loginRequest(
            LoginFlags(rawValue: script.byte()), isid: .random(1, qualifier: 1), tsih: 0, connectionID: 0, tag: 1, cmdSN: 1, expStatSN: 0)
        if script.byte() & 0xF0 == 0xF0 { header.damage(&script) }
        guard link.answer(to: PDU(header: header, data: script.piece()), by: &target) != nil else { break }
        exchanges += 1
    }
    require(exchanges <= 130, "a login's exchanges are bounded")
}

private struct LoginLink {
    var flags: UInt8

    /// nil: the connection is closed.
    mutating func answer(to request: PDU, by target: inout TargetLogin) -> PDU? {
        guard !target.isOver else { return nil }
        var action = request.data.withUnsafeBytes { target.received(request.header, data: $0) }
        while true {
            switch action {
            case .identify(let identity):
                require(identity.initiatorName.utf8.count <= 255, "names are bounded")
                if flags & 0x80 != 0 {
                    action = target.identified(.redirect(TargetAddress(host: "10.0.0.1"), isPermanent: true))
                    continue
                }
                var grant = TargetLoginGrant(targetAlias: "disk")
                grant.operational.headerDigest = [.none, .crc32c]
                grant.operational.dataDigest = [.crc32c, .none]
                grant.operational.maxConnections = 4
                if flags & 0x10 != 0 { grant.authentication = .chap(initiators: [fuzzSecret], own: flags & 0x20 != 0 ? nil : fuzzMutualSecret) }
                if identity.tsih != 0 { grant.sessionParameters = NegotiatedParameters() }
                action = target.identified(.accept(grant))
            case .establish: action = target.established(.admit(tsih: 5, expCmdSN: 1, maxCmdSN: 32))
            case .send(let pdu), .refused(let pdu, _): return pdu
            case .finished(let pdu, let result):
                if flags & 0x10 != 0 { require(result.authenticatedName == fuzzSecret.name, "nobody gets in without a proof") }
                return pdu
            case .failed: return nil
            }
        }
    }
}

private func changed(_ pdu: PDU, _ script: inout ByteScript) -> PDU {
    var pdu = pdu
    switch script.byte() {
    case 0..<0x90: break
    case 0x90..<0xA0: pdu.header.damage(&script)
    case 0xA0..<0xB0:
        // One more key.
        pdu = PDU(header: pdu.header, data: pdu.data + script.piece(limit: 512))
    case 0xB0..<0xC0: pdu = PDU(header: pdu.header, data: script.piece(limit: 1024))
    case 0xC0..<0xD0:
        // One key is missing or comes alone.
        let pairs = pdu.data.split(separator: 0)
        let index = pairs.isEmpty ? 0 : script.below(pairs.count)
        let isAlone = script.flag()
        var kept: [UInt8] = []
        for (offset, pair) in pairs.enumerated() where (offset == index) == isAlone { kept += pair + [0] }
        pdu = PDU(header: pdu.header, data: kept)
    case 0xD0..<0xE0:
        if !pdu.data.isEmpty {
            let index = Int(script.word16()) % pdu.data.count
            pdu.data[index] = script.byte()
        }
    case 0xE0..<0xF0: pdu.header.loginFlags = LoginFlags(rawValue: script.byte())
    default: pdu.header.loginStatus = LoginStatus(rawValue: script.word16() & 0x030F)
    }
    return pdu
}

@Sendable
func loginSeeds() -> [[UInt8]] {
    let keys = TextParameters.encode([
        TextPair("InitiatorName", fuzzInitiatorName), TextPair("TargetName", fuzzTargetName), TextPair("SessionType", "Normal"),
        TextPair("AuthMethod", "CHAP,None"), TextPair("MaxBurstLength", "16384"), TextPair("ErrorRecoveryLevel", "2"),
    ])
    var seeds: [[UInt8]] = []
    for flags in [0x00, 0x01, 0x0A, 0x16, 0x1E, 0x36, 0x40, 0x80] as [UInt8] {
        seeds.append([flags])
        seeds.append([flags] + [0, 0, 0, 0, 0, 0, 0xC0, 1, 0])
        var script = ScriptWriter([flags, 0xFF, 0x02, 0x03, 0x81, 0])
        script.piece(keys)
        script.add(0x87, 0)
        script.piece(TextParameters.encode([TextPair("CHAP_A", "5,6,7,8")]))
        seeds.append(script.bytes)
    }
    return seeds
}
