import NBD
import Testing

@Suite struct NegotiationTests {
    private let flags: [UInt8] = Wire.flags()

    private func replies(_ rig: Rig) -> Replies {
        var replies = rig.takeSent()
        #expect(replies.take(18) == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
        return replies
    }

    @Test func theGreetingComesFirst() {
        let rig = Rig()
        #expect(rig.isNegotiating && rig.hasOutput)
        #expect(replies(rig).bytes.isEmpty)
    }

    @Test func flagsThatWereNotOfferedEndIt() {
        let rig = Rig()
        rig.receive(Wire.number(UInt32(4)))
        #expect(rig.endReason == .violation(.unknownHandshakeFlags))
    }

    @Test func anExportIsChosenByNameAlone() {
        for (flags, padding) in [(HandshakeFlags.fixedNewstyle, 124), ([.fixedNewstyle, .noZeroes], 0), ([], 124)] {
            let rig = Rig()
            rig.receive(Wire.flags(flags) + Wire.option(.exportName, Array("disk".utf8)) + Wire.request(.flush, cookie: 9))
            rig.executeAll()
            var replies = replies(rig)
            #expect(replies.number(UInt64.self) == 1 << 20)
            let offered = TransmissionFlags(rawValue: replies.number(UInt16.self) ?? 0)
            #expect(offered == [.hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn, .sendCache, .sendFastZero])
            #expect(replies.take(padding) == [UInt8](repeating: 0, count: padding))
            #expect(replies.answer() == .init(cookie: 9, error: 0))
            #expect(replies.bytes.isEmpty)
        }
    }

    @Test func aNameThatIsUnknownHasNoAnswer() {
        let rig = Rig(defaultExport: nil)
        rig.receive(flags + Wire.option(.exportName))
        #expect(rig.endReason == .unknownExport)
    }

    @Test func withoutTheFixedStyleThereIsOneOption() {
        let rig = Rig()
        rig.receive(Wire.flags([]) + Wire.option(.list))
        #expect(rig.endReason == .violation(.optionWithoutFixedNewstyle))
    }

    @Test func listNamesAll() {
        let second = Export(name: "second", byteCount: 512)
        let rig = Rig([Rig.export, second], defaultExport: nil)
        rig.receive(flags + Wire.option(.list) + Wire.option(.list, [1]))
        var replies = replies(rig)
        #expect(replies.options() == [
            .init(option: .list, code: .server, data: Wire.string("disk") + Array("a disk".utf8)),
            .init(option: .list, code: .server, data: Wire.string("second")),
            .init(option: .list, code: .acknowledge, data: []),
        ])
        #expect(replies.options().map(\.code) == [.invalid])
        #expect(rig.isNegotiating)
    }

    @Test func infoAndGoSayTheSame() {
        let rig = Rig()
        rig.receive(flags + Wire.option(.structuredReply) + Wire.option(.info, Wire.choice("", [1, 2, 3, 77])))
        var replies = replies(rig)
        #expect(replies.options().map(\.code) == [.acknowledge])
        let told = replies.options()
        #expect(told.map(\.code) == [.info, .info, .info, .info, .acknowledge])
        #expect(Array(told[0].data.prefix(10)) == Wire.number(UInt16(0)) + Wire.number(UInt64(1 << 20)))
        let offered = TransmissionFlags(rawValue: UInt16(told[0].data[10]) << 8 | UInt16(told[0].data[11]))
        #expect(offered.contains(.sendDF), "where structured replies were agreed on")
        #expect(told[1].data == [0, 1] + Array("disk".utf8))
        #expect(told[2].data == [0, 2] + Array("a disk".utf8))
        #expect(told[3].data == [0, 3] + Wire.number(UInt32(512)) + Wire.number(UInt32(4096)) + Wire.number(UInt32(32 << 20)))
        #expect(rig.isNegotiating)

        rig.receive(Wire.option(.go, Wire.choice("disk", [1, 2, 3, 77])))
        var again = rig.takeSent()
        #expect(again.options().map(\.data) == told.map(\.data))
        #expect(rig.export == Rig.export)
    }

    @Test func errorsLeaveTheNegotiationOpen() {
        let rig = Rig([Rig.export, Export(name: "big", byteCount: 8192, minimumBlockByteCount: 4096)], defaultExport: nil)
        let cases: [([UInt8], OptionReplyCode)] = [
            (Wire.go("nobody"), .unknownExport), (Wire.go(""), .unknownExport), (Wire.option(.go, [0, 0, 0, 9, 1]), .invalid),
            (Wire.option(.go, Wire.string("disk") + [0, 5]), .invalid), (Wire.option(.go, Wire.choice("disk") + [0]), .invalid),
            (Wire.option(.go, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0]), .invalid), (Wire.option(.startTLS), .unsupported),
            (Wire.option(.startTLS, [1]), .invalid), (Wire.option(OptionCode(rawValue: 4)), .unsupported),
            (Wire.option(OptionCode(rawValue: 11)), .unsupported), (Wire.option(OptionCode(rawValue: .max), [1, 2]), .unsupported),
            (Wire.option(.structuredReply, [1]), .invalid), (Wire.option(.setMetaContext, Wire.string("disk") + [0, 0, 0, 0]), .invalid),
            (Wire.option(.list, [UInt8](repeating: 0, count: 20_000)), .tooBig),
        ]
        _ = replies({ rig.receive(flags); return rig }())
        for (bytes, code) in cases {
            rig.receive(bytes)
            var replies = rig.takeSent()
            #expect(replies.options().last?.code == code)
            #expect(rig.isNegotiating)
        }
        // 4096-byte blocks have to be told; who did not ask, is told and refused.
        rig.receive(Wire.go("big", []))
        var replies = rig.takeSent()
        #expect(replies.options().map(\.code) == [.info, .blockSizeRequired])
        rig.receive(Wire.go("big"))
        #expect(rig.export?.name == "big")
    }

    @Test func thereAreNoMetadataContexts() {
        let rig = Rig()
        let query = Wire.string("disk") + Wire.number(UInt32(1)) + Wire.string("base:allocation")
        let wrong = Wire.string("disk") + Wire.number(UInt32.max) + Wire.string("base:allocation")
        rig.receive(flags + Wire.option(.structuredReply))
        _ = rig.takeSent()
        for (data, code) in [(query, OptionReplyCode.acknowledge), (wrong, .invalid), (Wire.string("x") + [0, 0, 0, 0], .unknownExport)] {
            rig.receive(Wire.option(.listMetaContext, data) + Wire.option(.setMetaContext, data))
            var replies = rig.takeSent()
            #expect(replies.options().map(\.code) == [code])
            #expect(replies.options().map(\.code) == [code])
        }
    }

    @Test func aClientMayGiveUp() {
        let rig = Rig()
        rig.receive(flags + Wire.option(.abort) + [1, 2, 3])
        #expect(rig.endReason == .aborted && !rig.isDrained)
        var replies = replies(rig)
        #expect(replies.options().map(\.code) == [.acknowledge])
        #expect(rig.isDrained)
    }

    @Test func theEndOfPatience() {
        let big = Rig()
        big.receive(flags + Wire.option(.list, byteCount: 1 << 20))
        #expect(big.isNegotiating)
        let huge = Rig()
        huge.receive(flags + Wire.option(.list, byteCount: 1 << 20 | 1))
        #expect(huge.endReason == .violation(.optionTooBig))
        let garbage = Rig()
        garbage.receive(flags + [UInt8](repeating: 0x55, count: 64))
        #expect(garbage.endReason == .violation(.optionMagic))
    }

    @Test func answersThatNobodyReadsStopTheQuestions() {
        let rig = Rig()
        rig.receive(flags)
        var count = 0
        while !rig.isCongested, count < 100_000 {
            rig.receive(Wire.option(.list))
            count += 1
        }
        #expect(count < 5000)
        rig.receive(Wire.option(.list) + Wire.option(.list))
        rig.read()
        #expect(!rig.isCongested)
        var replies = replies(rig)
        for _ in 0..<count + 2 { #expect(replies.options().count == 2) }
    }
}
