import NBD
import Testing

/// What a client may do without harm to others.
@Suite struct BoundsTests {
    @Test func soManyRequestsAndNoMore() {
        var limits = Session.Limits()
        limits.requestCount = 8
        let rig = Rig(limits: limits)
        rig.enter()
        rig.receive((0..<100).flatMap { Wire.request(.read, cookie: $0, 512) } + Wire.request(.disconnect))
        #expect(rig.executing.count == 8 && rig.isCongested)
        // Done, but not read by the client: no room yet.
        for _ in 0..<8 { rig.execute() }
        #expect(rig.executing.isEmpty && rig.isCongested)
        var answers = 0
        var replies = Replies([])
        while rig.endReason == nil || !rig.isDrained {
            replies = rig.takeSent()
            while replies.answer([UInt64](0..<100).reduce(into: [:]) { $0[$1] = 512 }) != nil { answers += 1 }
            rig.executeAll()
            #expect(rig.pool.lentByteCount <= 8 * 4096)
        }
        #expect(answers == 100 && rig.endReason == .disconnected && rig.pool.lentByteCount == 0)
    }

    @Test func aClientThatDoesNotReadHoldsSoMuchAndNoMore() {
        var limits = Session.Limits()
        limits.memoryByteCount = 32 << 20
        let rig = Rig([Export(name: "disk", byteCount: 1 << 30)], limits: limits, byteCount: 64 << 20)
        rig.enter()
        rig.receive((0..<64).flatMap { Wire.request(.read, cookie: $0, offset: $0 << 20, 1 << 20) })
        #expect(rig.executing.count == 32 && rig.pool.lentByteCount == 32 << 20)
        rig.executeAll()
        #expect(rig.pool.lentByteCount == 32 << 20 && rig.isCongested && !rig.isWaitingForPool)
        #expect(rig.holdsMemoryForClient)
        rig.read(2 << 20)
        #expect(rig.executing.count >= 1, "what was read makes room")
        rig.session.peerClosed()
        rig.executeAll()
        #expect(rig.pool.lentByteCount == 0)
    }

    @Test func requestsOfFourGigabytesAreSkippedInNoMemory() {
        let rig = Rig([Export(name: "disk", byteCount: 1 << 40)])
        rig.enter()
        rig.receive(Wire.request(.write, cookie: 1, Int(UInt32.max) - 511))
        let chunk = [UInt8](repeating: 0, count: 1 << 20)
        for _ in 0..<4095 { rig.receive(chunk) }
        rig.receive([UInt8](repeating: 0, count: (1 << 20) - 512))
        #expect(rig.pool.lentByteCount == 0)
        rig.receive(Wire.request(.flush, cookie: 2))
        rig.executeAll()
        var replies = rig.takeSent()
        #expect(replies.answer() == .init(cookie: 1, error: ReplyError.invalid.rawValue))
        #expect(replies.answer() == .init(cookie: 2, error: 0))
    }

    @Test func largeRangesWithoutDataAreOneRequest() {
        let rig = Rig([Export(name: "disk", byteCount: 1 << 40, features: .trim)])
        rig.enter()
        let largest = Int(UInt32.max) - 511
        rig.receive(
            Wire.request(.trim, cookie: 1, largest) + Wire.request(.writeZeroes, cookie: 2, offset: 1 << 30, largest)
                + Wire.request(.cache, cookie: 3, largest))
        #expect(rig.executing.map(\.byteCount) == [largest, largest, 32 << 20], "CACHE may do less")
        rig.session.peerClosed()
        for index in [2, 1, 0] { rig.session.complete(rig.executing[index].slot, nil) }
        #expect(rig.pool.lentByteCount == 0)
    }

    @Test func memoryGoesToWhoWaitedLongest() {
        let pool = BufferPool(limitByteCount: 32 << 20)
        let exports = [Export(name: "disk", byteCount: 1 << 30)]
        let rigs = (0..<3).map { _ in Rig(exports, pool: pool, byteCount: 32 << 20) }
        for rig in rigs { rig.enter() }
        rigs[0].receive(Wire.request(.read, cookie: 1, 4096))
        rigs[1].receive(Wire.request(.read, cookie: 1, 32 << 20))
        #expect(rigs[1].isWaitingForPool && rigs[1].isCongested)
        pool.isReservedForWaiting = true
        rigs[2].receive(Wire.request(.read, cookie: 1, 4096))
        #expect(rigs[2].isWaitingForPool, "not past the one that waits")
        rigs[0].executeAll()
        rigs[0].read()
        pool.isReservedForWaiting = false
        rigs[1].session.proceed(hasWaited: true)
        #expect(!rigs[1].isWaitingForPool)
        rigs[2].session.proceed(hasWaited: true)
        #expect(rigs[2].isWaitingForPool)
        for rig in rigs { rig.session.peerClosed() }
        while let request = rigs[1].session.nextRequest() { rigs[1].session.complete(request.slot, nil) }
        #expect(pool.lentByteCount == 0)
    }

    @Test func theEndLetsTheDiskFinish() {
        let rig = Rig()
        rig.enter()
        let half = Wire.request(.write, cookie: 3, offset: 0, 4096, payload: [UInt8](repeating: 1, count: 100))
        rig.receive(Wire.write([UInt8](repeating: 9, count: 512), cookie: 1) + Wire.request(.read, cookie: 2, 512) + half)
        rig.session.shutDown()
        rig.receive([UInt8](repeating: 1, count: 5000))
        #expect(rig.endReason == .shutDown && !rig.isDrained && rig.executing.count == 2)
        rig.executeAll()
        var replies = rig.takeSent()
        #expect(replies.answer() == .init(cookie: 1, error: 0))
        #expect(replies.answer([2: 512])?.data == [UInt8](repeating: 9, count: 512))
        #expect(rig.isDrained && rig.pool.lentByteCount == 0)
    }

    /// Anything at all, in any pieces, with a disk and a reader that do as they please.
    @Test func nothingTrapsAndNothingIsKept() {
        for seed in 1...400 as ClosedRange<UInt64> {
            var numbers = Numbers(seed)
            var limits = Session.Limits()
            limits.requestCount = Int.random(in: 1...5, using: &numbers)
            let pool = BufferPool(limitByteCount: 32 << 20)
            let rig = Rig(pool: pool, limits: limits)
            if seed % 4 > 0 { rig.receive(Wire.flags() + (seed % 2 == 0 ? Wire.option(.structuredReply) : []) + Wire.go("disk")) }
            for _ in 0..<60 {
                switch Int.random(in: 0..<8, using: &numbers) {
                case 0, 1, 2: rig.receive(message(&numbers), pieceByteCount: Int.random(in: 1...600, using: &numbers))
                case 3: rig.read(Int.random(in: 1...2000, using: &numbers))
                case 4, 5: if !rig.executing.isEmpty { rig.execute(Int.random(in: 0..<rig.executing.count, using: &numbers)) }
                case 6: if !rig.executing.isEmpty { rig.execute(0, .inputOutput) }
                default:
                    if Int.random(in: 0..<20, using: &numbers) == 0 { rig.session.shutDown() }
                }
                #expect(rig.executing.count <= limits.requestCount && rig.executingCount == rig.executing.count)
            }
            rig.session.peerClosed()
            rig.executeAll()
            #expect(rig.isDrained && pool.lentByteCount == 0, "seed \(seed)")
        }
    }

    private func message(_ numbers: inout Numbers) -> [UInt8] {
        let commands = [CommandCode.read, .write, .flush, .trim, .cache, .writeZeroes, .blockStatus, .disconnect]
        var bytes: [UInt8]
        switch Int.random(in: 0..<6, using: &numbers) {
        case 0: bytes = (0..<Int.random(in: 1...64, using: &numbers)).map { _ in UInt8.random(in: 0...255, using: &numbers) }
        case 1: bytes = Wire.option(OptionCode(rawValue: .random(in: 0...12, using: &numbers)), Wire.choice("disk", [3]))
        case 2: bytes = Wire.write([UInt8](repeating: 4, count: 512 * Int.random(in: 0...9, using: &numbers)), offset: 512 * .random(in: 0...2050, using: &numbers))
        default:
            bytes = Wire.request(
                commands.randomElement(using: &numbers)!, cookie: .random(in: 0...9, using: &numbers),
                offset: 512 * .random(in: 0...2050, using: &numbers), 512 * Int.random(in: 0...9, using: &numbers),
                flags: CommandFlags(rawValue: Int.random(in: 0...3, using: &numbers) == 0 ? .random(in: 0...63, using: &numbers) : 0))
        }
        if Int.random(in: 0..<5, using: &numbers) == 0 {
            bytes[Int.random(in: 0..<bytes.count, using: &numbers)] ^= UInt8.random(in: 1...255, using: &numbers)
        }
        return bytes
    }
}
