import NBD
import Testing

@Suite struct TransmissionTests {
    private func pattern(_ count: Int, _ seed: UInt8) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) &+ seed } }

    @Test(arguments: [false, true])
    func blocksGoInAndOut(structured: Bool) {
        let rig = Rig()
        rig.enter(structured: structured)
        let data = pattern(8192, 7)
        rig.receive(Wire.write(data, cookie: 0xABCD_EF01_2345_6789, offset: 4096, flags: .forceUnitAccess))
        #expect(rig.executing.first?.flags == .forceUnitAccess)
        rig.executeAll()
        var replies = rig.takeSent()
        #expect(replies.answer() == .init(cookie: 0xABCD_EF01_2345_6789, error: 0))
        #expect(Array(rig.disk[4096..<12_288]) == data)

        rig.receive(Wire.request(.read, cookie: 2, offset: 4096, 8192))
        rig.executeAll()
        replies = rig.takeSent()
        #expect(replies.answer([2: 8192]) == .init(cookie: 2, error: 0, data: data, offset: structured ? 4096 : nil))

        rig.receive(Wire.request(.writeZeroes, cookie: 3, offset: 4096, 512, flags: [.noHole, .fastZero]))
        #expect(rig.executing.first?.flags == [.noHole, .fastZero] && rig.executing.first?.memory == nil)
        rig.executeAll()
        #expect(rig.disk[4096] == 0 && rig.disk[4096 + 512] == data[512])
        rig.receive(Wire.request(.trim, cookie: 4, offset: 0, 1 << 20) + Wire.request(.flush, cookie: 5) + Wire.request(.cache, cookie: 6, 4096))
        #expect(rig.executing.map(\.command) == [.trim, .flush, .cache])
        rig.executeAll()
        replies = rig.takeSent()
        for cookie in 3...6 as ClosedRange<UInt64> { #expect(replies.answer() == .init(cookie: cookie, error: 0)) }
        #expect(replies.bytes.isEmpty && rig.pool.lentByteCount == 0 && rig.isDrained)
    }

    /// Whatever the network makes of the same bytes, the answers are the same.
    @Test func dripsAndFloodsAreTheSame() {
        var bytes = Wire.flags() + Wire.option(.structuredReply) + Wire.option(.list) + Wire.go("disk")
        var reads: [UInt64: Int] = [:]
        for index in 0..<40 as Range<UInt64> {
            bytes += Wire.write(pattern(1024, UInt8(index)), cookie: index, offset: index * 1024)
            bytes += Wire.request(.read, cookie: 100 + index, offset: index * 512, 512)
            bytes += Wire.write(pattern(300, 0), cookie: 200 + index)  // misaligned: skipped
            reads[100 + index] = 512
        }
        bytes += Wire.request(.disconnect)
        // Refusals go out at once and so before, or after, what the disk has: the order is that of the ends.
        func run(_ piece: Int, readByteCount: Int) -> [UInt64: Replies.Answer] {
            let rig = Rig()
            var rest = bytes[...]
            while !rest.isEmpty {
                rig.receive(Array(rest.prefix(piece)))
                rest = rest.dropFirst(piece)
                rig.executeAll()
                rig.read(readByteCount)
            }
            while rig.read(readByteCount) > 0 { rig.executeAll() }
            #expect(rig.endReason == .disconnected && rig.isDrained && rig.pool.lentByteCount == 0)
            var replies = rig.takeSent()
            _ = replies.take(18)
            let options = (0..<3).map { _ in replies.options().map(\.code) }
            #expect(options == [[.acknowledge], [.server, .acknowledge], [.info, .info, .acknowledge]])
            var answers: [UInt64: Replies.Answer] = [:]
            while let answer = replies.answer(reads) { answers[answer.cookie] = answer }
            #expect(replies.bytes.isEmpty)
            return answers
        }
        let flood = run(.max, readByteCount: .max)
        #expect(flood.count == 120 && flood[139]?.data.count == 512 && flood[200]?.error == ReplyError.invalid.rawValue)
        for (piece, readByteCount) in [(1, .max), (1, 1), (7, 3), (29, 1000), (4096, 77)] {
            let isSame = run(piece, readByteCount: readByteCount) == flood
            #expect(isSame, "\(piece) \(readByteCount)")
        }
    }

    @Test(arguments: [false, true])
    func whatCannotBeIsRefused(structured: Bool) {
        let last = UInt64(1 << 20) - 512
        let tooLong = Int(Export.defaultMaximumPayloadByteCount) + 512
        let large = Export(name: "disk", byteCount: 1 << 40, features: .trim)
        let cases: [([UInt8], ReplyError, Export)] = [
            (Wire.request(.read, offset: 1, 512), .invalid, Rig.export),
            (Wire.request(.read, offset: 0, 100), .invalid, Rig.export),
            (Wire.request(.read, offset: last, 1024), .invalid, Rig.export),
            (Wire.request(.read, offset: .max - 511, 1024), .invalid, Rig.export),
            (Wire.write(pattern(1024, 0), offset: last), .noSpace, Rig.export),
            (Wire.write(pattern(100, 0)), .invalid, Rig.export),
            (Wire.request(.writeZeroes, offset: last, 1024), .noSpace, Rig.export),
            (Wire.request(.trim, offset: last, 1024), .invalid, Rig.export),
            (Wire.request(.flush, offset: 512), .invalid, Rig.export),
            (Wire.request(.blockStatus, offset: 0, 512), .invalid, Rig.export),
            (Wire.request(CommandCode(rawValue: 8), 512), .invalid, Rig.export),
            (Wire.request(CommandCode(rawValue: .max)), .invalid, Rig.export),
            (Wire.request(.read, 512, flags: .noHole), .invalid, Rig.export),
            (Wire.request(.flush, flags: CommandFlags(rawValue: 1 << 15)), .invalid, Rig.export),
            (Wire.request(.writeZeroes, 512, flags: .fastZero), .invalid, large),
            (Wire.request(.trim, 512), .invalid, Export(name: "disk", byteCount: 1 << 20)),
            (Wire.request(.read, tooLong), structured ? .overflow : .invalid, large),
            (Wire.write(pattern(512, 0)), .notPermitted, Export(name: "disk", byteCount: 1 << 20, features: .readOnly)),
            (Wire.request(.trim, 512), .notPermitted, Export(name: "disk", byteCount: 1 << 20, features: .readOnly)),
            (Wire.request(.writeZeroes, 512), .notPermitted, Export(name: "disk", byteCount: 1 << 20, features: .readOnly)),
        ]
        for (index, (bytes, error, export)) in cases.enumerated() {
            let rig = Rig([export])
            rig.enter(structured: structured)
            rig.receive(bytes + Wire.request(.flush, cookie: 77))
            #expect(rig.executing.map(\.command) == [.flush], "case \(index): nothing reaches the disk")
            rig.executeAll()
            var replies = rig.takeSent()
            #expect(replies.answer()?.error == error.rawValue, "case \(index)")
            #expect(replies.answer() == .init(cookie: 77, error: 0), "case \(index)")
            #expect(rig.pool.lentByteCount == 0)
        }
    }

    @Test func emptyRequestsAreDoneAtOnce() {
        let rig = Rig()
        rig.enter(structured: true)
        rig.receive(Wire.request(.read, cookie: 1) + Wire.request(.write, cookie: 2) + Wire.request(.trim, cookie: 3, offset: 1 << 20))
        var replies = rig.takeSent()
        for cookie in 1...3 as ClosedRange<UInt64> { #expect(replies.answer() == .init(cookie: cookie, error: 0)) }
    }

    @Test func theDisksErrorsAreTold() {
        for structured in [false, true] {
            let rig = Rig()
            rig.enter(structured: structured)
            rig.receive(Wire.request(.read, cookie: 1, 512) + Wire.write(pattern(512, 1), cookie: 2))
            rig.execute(1, .noSpace)
            rig.execute(0, .inputOutput)
            var replies = rig.takeSent()
            #expect(replies.answer() == .init(cookie: 2, error: ReplyError.noSpace.rawValue), "in the order of their ends")
            #expect(replies.answer() == .init(cookie: 1, error: ReplyError.inputOutput.rawValue))
            #expect(replies.bytes.isEmpty && rig.pool.lentByteCount == 0)
        }
    }

    @Test func largeDataIsReceivedIntoItsPlace() {
        let rig = Rig()
        rig.enter()
        let data = pattern(256 << 10, 3)
        rig.receive(Wire.request(.write, data.count, payload: Array(data[..<1000])))
        let window = rig.session.inputWindow
        #expect(window.count == data.count - 1000)
        data[1000...].withUnsafeBytes { window.copyMemory(from: $0) }
        rig.session.received(placedByteCount: window.count, spill: UnsafeRawBufferPointer(start: nil, count: 0))
        rig.receive(Wire.request(.flush, cookie: 2))
        #expect(rig.executing.count == 2)
        #expect(rig.executing[0].memory == window.baseAddress! - 1000)
        rig.executeAll()
        #expect(Array(rig.disk[..<data.count]) == data)
    }

    @Test func somethingElseThanARequestEndsIt() {
        let rig = Rig()
        rig.enter()
        rig.receive(Wire.request(.read, 512) + [UInt8](repeating: 0, count: 28))
        #expect(rig.endReason == .violation(.requestMagic))
        rig.session.peerClosed()
        #expect(rig.executingCount == 1 && rig.pool.lentByteCount > 0, "the disk still has it")
        rig.execute()
        #expect(rig.pool.lentByteCount == 0 && !rig.hasOutput && rig.isDrained)
    }
}
