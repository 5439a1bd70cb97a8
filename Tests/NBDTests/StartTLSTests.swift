import NBD
import Testing

/// What a session says before, at and after STARTTLS; no TLS here.
@Suite struct StartTLSTests {
    private static let greetingByteCount = 18

    /// Past the flags.
    private func rig(_ security: TransportSecurity, _ flags: HandshakeFlags = [.fixedNewstyle, .noZeroes]) -> Rig {
        let rig = Rig(security: security)
        rig.receive(Wire.flags(flags))
        var greeting = rig.takeSent()
        #expect(greeting.take(Self.greetingByteCount) != nil && greeting.bytes.isEmpty)
        return rig
    }

    private func answers(_ rig: Rig, to bytes: [UInt8]) -> [Replies.Option] {
        rig.receive(bytes)
        var replies = rig.takeSent()
        let options = replies.options()
        #expect(replies.bytes.isEmpty)
        return options
    }

    private func startTLS(_ rig: Rig) {
        #expect(answers(rig, to: Wire.option(.startTLS)) == [.init(option: .startTLS, code: .acknowledge, data: [])])
        #expect(rig.isStartingTLS && rig.isNegotiating && !rig.isCongested)
        rig.tlsEstablished()
        #expect(!rig.isStartingTLS && rig.isNegotiating)
    }

    @Test func withoutKeysItIsNotThere() {
        let rig = rig(.none)
        #expect(answers(rig, to: Wire.option(.startTLS)).map(\.code) == [.unsupported])
        #expect(!rig.isStartingTLS)
        #expect(answers(rig, to: Wire.go("disk")).last?.code == .acknowledge)
    }

    @Test(arguments: [
        Wire.option(.list), Wire.go("disk"), Wire.option(.info, Wire.choice("disk")), Wire.option(.structuredReply),
        Wire.option(.listMetaContext, Wire.string("disk") + Wire.number(UInt32(0))), Wire.option(OptionCode(rawValue: 99), [1, 2, 3]),
        // Too long to be kept: skipped, and refused for the same reason.
        Wire.option(.info, [UInt8](repeating: 0, count: 20_000)),
    ])
    func whatIsRequiredComesFirst(_ option: [UInt8]) {
        let rig = rig(.required)
        let refusal = answers(rig, to: option)
        #expect(refusal.map(\.code) == [.tlsRequired])
        #expect(rig.isNegotiating && rig.export == nil)
        startTLS(rig)
        #expect(answers(rig, to: Wire.option(.list)).map(\.code) == [.server, .acknowledge])
        #expect(answers(rig, to: Wire.go("disk")).last?.code == .acknowledge)
        #expect(rig.export?.name == "disk")
    }

    @Test(arguments: [[.fixedNewstyle, .noZeroes], []] as [HandshakeFlags])
    func theOptionWithoutAnAnswerEndsTheConnection(_ flags: HandshakeFlags) {
        let rig = rig(.required, flags)
        rig.receive(Wire.option(.exportName, Array("disk".utf8)))
        #expect(rig.endReason == .violation(.exportNameWithoutTLS))
        var replies = rig.takeSent()
        #expect(replies.take(1) == nil, "no size, no flags")
    }

    @Test func aClientMayGiveUpBefore() {
        let rig = rig(.required)
        #expect(answers(rig, to: Wire.option(.abort)).map(\.code) == [.acknowledge])
        #expect(rig.endReason == .aborted)
    }

    @Test func whatIsAllowedCanBeLeft() {
        let rig = rig(.allowed)
        #expect(answers(rig, to: Wire.option(.list)).map(\.code) == [.server, .acknowledge])
        #expect(answers(rig, to: Wire.go("disk")).last?.code == .acknowledge)
        #expect(rig.export?.name == "disk")
        let other = self.rig(.allowed)
        startTLS(other)
        #expect(answers(other, to: Wire.go("disk")).last?.code == .acknowledge)
    }

    @Test(arguments: [TransportSecurity.allowed, .required])
    func itIsAskedForOnceAndWithoutData(_ security: TransportSecurity) {
        let rig = rig(security)
        #expect(answers(rig, to: Wire.option(.startTLS, [1])).map(\.code) == [.invalid])
        #expect(!rig.isStartingTLS)
        startTLS(rig)
        #expect(answers(rig, to: Wire.option(.startTLS)).map(\.code) == [.invalid])
        #expect(!rig.isStartingTLS && rig.endReason == nil)
        #expect(answers(rig, to: Wire.go("disk")).last?.code == .acknowledge)
    }

    /// Whoever stands between could have said it (CVE-2021-3716 was this).
    @Test func whatWasAgreedInTheClearIsForgotten() {
        let rig = rig(.allowed)
        #expect(answers(rig, to: Wire.option(.structuredReply)).map(\.code) == [.acknowledge])
        startTLS(rig)
        let query = Wire.string("disk") + Wire.number(UInt32(0))
        #expect(answers(rig, to: Wire.option(.listMetaContext, query)).map(\.code) == [.invalid], "no structured replies")
        #expect(answers(rig, to: Wire.go("disk")).last?.code == .acknowledge)
        rig.receive(Wire.request(.read, cookie: 7, 512))
        rig.executeAll()
        var replies = rig.takeSent()
        #expect(replies.bytes.starts(with: Wire.number(UInt32(0x6744_6698))), "a simple reply")
        #expect(replies.answer([7: 512])?.data.count == 512)
    }

    /// Plain bytes behind STARTTLS in one packet are not said by whom the handshake is with.
    @Test(arguments: [1, 7, .max], [[0x49], Wire.go("disk"), [0x16, 3, 1]] as [[UInt8]])
    func whatIsInjectedBehindItEndsTheConnection(_ pieceByteCount: Int, _ injected: [UInt8]) {
        let rig = rig(.required)
        rig.receive(Wire.option(.startTLS) + injected, pieceByteCount: pieceByteCount)
        #expect(rig.endReason == .violation(.dataBehindStartTLS))
        #expect(rig.export == nil && !rig.isStartingTLS)
    }

    /// The same where it had to wait, since the client reads no answers.
    @Test func whatIsInjectedEarlierIsFoundToo() {
        let rig = rig(.allowed)
        let options = [[UInt8]](repeating: Wire.option(.info, Wire.choice("disk", [1, 2, 3])), count: 2000).flatMap { $0 }
        rig.receive(options)
        #expect(rig.isCongested)
        rig.receive(Wire.option(.startTLS) + [0])
        #expect(rig.endReason == nil)
        rig.read()
        #expect(rig.endReason == .violation(.dataBehindStartTLS))
    }

    /// Answers that wait are sent in the clear; how much that is, who does the TLS is told.
    @Test func whatIsLeftToSayInTheClearIsCounted() {
        let rig = Rig(security: .allowed)
        rig.receive(Wire.flags() + Wire.option(.list) + Wire.option(.startTLS))
        let whole = rig.negotiationOutputByteCount
        #expect(whole > 18 + 20 + 20)
        rig.read(25)
        #expect(rig.negotiationOutputByteCount == whole - 25)
        rig.read()
        #expect(rig.negotiationOutputByteCount == 0 && rig.isStartingTLS)
    }

    @Test func theEndComesInBetweenAsWell() {
        let rig = rig(.required)
        rig.receive(Wire.option(.startTLS))
        rig.read()
        rig.session.shutDown()
        #expect(rig.endReason == .shutDown && rig.isDrained && !rig.isStartingTLS)
    }
}
