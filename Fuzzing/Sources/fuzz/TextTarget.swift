import ISCSI

/// Texts, values, names and addresses. The first byte says how the rest is cut.
@Sendable
func fuzzText(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let chunk = Int(script.byte()) + 1
    let bytes = script.bytes(1 << 16)
    if let parameters = try? TextParameters(parsing: bytes) {
        require(parameters.pairs.count <= TextLimits.pairCount, "the number of keys is bounded")
        let again = try? TextParameters(parsing: parameters.encoded)
        require(again == parameters, "what was read is written the same")
        for pair in parameters.pairs { fuzzValue(pair.value) }
    }
    if let targets = try? SendTargets.targets(parsing: bytes) {
        let again = try? SendTargets.targets(parsing: SendTargets.encode(targets))
        require(again == targets, "targets are written as they are read")
    }
    assemble(bytes, chunk: chunk)
    if bytes.count < 512 { fuzzValue(String(decoding: bytes, as: UTF8.self)) }
}

private func assemble(_ bytes: [UInt8], chunk: Int) {
    var assembler = TextAssembler(limit: 4096)
    bytes.withUnsafeBytes { all in
        for start in stride(from: 0, to: all.count, by: chunk) {
            let piece = UnsafeRawBufferPointer(rebasing: all[start..<min(start + chunk, all.count)])
            guard (try? assembler.append(piece)) != nil else { return }
        }
    }
    require(assembler.take().count <= 4096, "an assembled text is bounded")
}

private func fuzzValue(_ text: String) {
    _ = TextValue.number(text)
    _ = TextValue.boolean(text)
    _ = TextValue.list(text)
    if let bytes = TextValue.binary(text, limit: 64) {
        require(bytes.count <= 64, "a binary value keeps its limit")
        require(TextValue.binary(TextValue.hexadecimal(bytes), limit: 64) == bytes || bytes.isEmpty, "binary values round trip")
    }
    if let address = TargetAddress(parsing: text) {
        require(TargetAddress(parsing: address.description) == address, "addresses round trip")
    }
    if let name = try? ISCSIName(text) { require((try? ISCSIName(name.text)) == name, "names round trip") }
    _ = SendTargets.Request(value: text)
    _ = DigestKind(name: text)
}

@Sendable
func textSeeds() -> [[UInt8]] {
    let pairs = [
        TextPair("InitiatorName", fuzzInitiatorName), TextPair("HeaderDigest", "CRC32C,None"), TextPair("CHAP_C", "0x0011aaff"),
        TextPair("CHAP_R", "0bAAECAw=="), TextPair("MaxRecvDataSegmentLength", "262144"), TextPair("ImmediateData", "Yes"),
    ]
    let targets = [
        DiscoveredTarget(
            name: fuzzTargetName,
            addresses: [TargetAddress(host: "10.0.0.1", portalGroupTag: 1), TargetAddress(host: "fe80::1%eth0", port: 3261)]),
        DiscoveredTarget(name: "eui.02004567A425678D"),
    ]
    return [
        [255] + TextParameters.encode(pairs), [3] + SendTargets.encode(targets), [1] + SendTargets.Request.all.encoded,
        [0] + Array("[fe80::1]:3260,1".utf8), [0] + Array("naa.62004567BA64678D0123456789ABCDEF".utf8),
        [0] + Array("18446744073709551615".utf8), [0] + Array("0xFFFFFFFFFFFFFFFF".utf8),
    ]
}
