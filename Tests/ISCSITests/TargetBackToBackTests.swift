import SCSI
import Testing
import Timebase

@testable import ISCSI

/// The shipped initiator against the shipped target, with nothing but memory between them.
@Suite struct TargetBackToBackTests {
    static let blockSize = 512
    static let regionBlocks = 80

    @Test(arguments: 0..<12) func everyByteArrivesWhateverWasAgreed(seed: Int) throws {
        var random = WireRandom(seed: UInt64(seed))
        func pick<Value>(_ values: [Value]) -> Value { values.randomElement(using: &random)! }
        let bench = TargetBench {
            $0.queueDepth = pick([1, 2, 5, 64])
            $0.operational.maxBurstByteCount = pick([4096, 20_000, 1 << 20])
            $0.operational.firstBurstByteCount = pick([512, 3000, 4096])
            $0.operational.maxRecvDataSegmentByteCount = pick([512, 5000, 262_144])
            $0.operational.initialR2T = pick([true, false])
            $0.operational.immediateData = pick([true, false])
            $0.operational.maxOutstandingR2T = pick([1, 3, 16])
        }
        var login = LoginSettings(
            initiatorName: "iqn.2026-11.org.example:host", targetName: TargetBench.name, isid: .random(1, qualifier: 1))
        login.operational.maxRecvDataSegmentByteCount = pick([512, 3001, 262_144])
        login.operational.headerDigest = [pick([.none, .crc32c])]
        login.operational.dataDigest = [pick([.none, .crc32c])]
        login.cmdSN = pick([1, 0xFFFF_FFF0])
        var pair = BackToBack(
            bench: bench, session: InitiatorSession(
                settings: SessionSettings(login: login), cryptography: WireCryptography(seed: 9), crc32c: CRC32C.table),
            chunk: pick([1 << 20, 5000, 377]))
        pair.session.connectionOpened(pair.c, at: bench.now)
        pair.exchange(&random)
        let event = pair.session.nextEvent()
        guard case .loggedIn = event else {
            Issue.record("not logged in")
            return
        }
        try pair.runCommands(60, &random)
        #expect(bench.service.pool.lentByteCount == 0)
        #expect(pair.target.endReason == nil)
        _ = pair.session.beginLogout(at: bench.now)
        pair.exchange(&random)
        #expect(bench.events.suffix(2) == ["connection loggedOut", "ended loggedOut"])
    }
}

/// Both ends and the bytes between them.
private struct BackToBack: ~Copyable {
    let bench: TargetBench
    var session: InitiatorSession
    let target: TargetConnection
    let c = ConnectionIndex(rawValue: 0)
    let chunk: Int
    let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 64)
    /// What the disk holds, and what it should.
    var disk: [UInt8]
    var model: [UInt8]
    static let regions = 16

    init(bench: TargetBench, session: consuming InitiatorSession, chunk: Int) {
        self.bench = bench
        self.session = session
        self.chunk = chunk
        target = TargetConnection(service: bench.service, portalGroupTag: 1, at: bench.now)
        disk = Array(repeating: 0, count: Self.regions * TargetBackToBackTests.regionBlocks * TargetBackToBackTests.blockSize)
        model = disk
    }

    deinit { segments.deallocate() }

    /// Moves bytes both ways and executes commands until nothing moves any more.
    mutating func exchange(_ random: inout WireRandom) {
        var isMoving = true
        while isMoving {
            isMoving = false
            var count = session.output(c, into: segments)
            if count > 0 {
                let bytes = gather(count)
                session.outputSent(c, byteCount: bytes.count)
                give(bytes, target.inputWindow()) { placed, spill in
                    target.received(placedByteCount: placed, spill: spill, at: bench.now)
                }
                isMoving = true
            }
            bench.drainEvents()
            execute()
            count = target.output(into: segments)
            if count > 0 {
                let bytes = gather(count)
                target.sent(byteCount: bytes.count)
                let window = session.input(c)
                let placed = min(window.count, bytes.count)
                for index in 0..<placed { window[index] = bytes[index] }
                bytes.dropFirst(placed).withUnsafeBytes {
                    session.received(c, placedByteCount: placed, spill: $0, at: bench.now)
                }
                isMoving = true
            }
        }
    }

    /// The first bytes of what was named, at most a chunk of them.
    private func gather(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        for segment in segments[..<count] where bytes.count < chunk { bytes += segment.prefix(chunk - bytes.count) }
        return bytes
    }

    private func give(
        _ bytes: [UInt8], _ window: UnsafeMutableRawBufferPointer, _ take: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        let placed = min(window.count, bytes.count)
        for index in 0..<placed { window[index] = bytes[index] }
        bytes.dropFirst(placed).withUnsafeBytes { take(placed, $0) }
    }

    private mutating func execute() {
        guard let targetSession = target.session else { return }
        while let action = targetSession.nextAction() {
            guard case .command(let slot) = action else { continue }
            let cdb = targetSession.cdb(slot)
            let offset = Int(cdb.field(at: 2, width: 4)) * TargetBackToBackTests.blockSize
            let count = Int(cdb.field(at: 7, width: 2)) * TargetBackToBackTests.blockSize
            if cdb.operationCode == 0x2A {
                let data = targetSession.dataOut(slot)
                #expect(data.count == count)
                disk.replaceSubrange(offset..<offset + data.count, with: data)
                targetSession.complete(slot, status: .good, dataOutByteCount: count)
            } else {
                let buffer = bench.service.pool.allocate(byteCount: count)!
                disk.withUnsafeBytes { buffer.base!.copyMemory(from: $0.baseAddress! + offset, byteCount: count) }
                targetSession.complete(
                    slot, status: .good, data: UnsafeRawBufferPointer(start: buffer.base, count: count), buffer: buffer)
            }
        }
    }

    /// Random reads and writes, each region used by one command at a time.
    mutating func runCommands(_ total: Int, _ random: inout WireRandom) throws {
        struct Running {
            var buffer: UnsafeMutableRawBufferPointer
            var offset: Int
            var isWrite: Bool
        }
        var running: [Int: Running] = [:]
        var issued = 0
        var completed = 0
        while completed < total {
            for region in 0..<Self.regions where issued < total && running[region] == nil {
                let blocks = Int.random(in: 1...TargetBackToBackTests.regionBlocks, using: &random)
                let lba = region * TargetBackToBackTests.regionBlocks
                    + Int.random(in: 0...TargetBackToBackTests.regionBlocks - blocks, using: &random)
                let isWrite = Bool.random(using: &random)
                let count = blocks * TargetBackToBackTests.blockSize
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
                if isWrite { buffer.copyBytes(from: random.bytes(count)) }
                let result = session.submit(
                    SCSICommandRequest(
                        token: UInt64(region), lun: LogicalUnitNumber(index: 0)!,
                        cdb: isWrite
                            ? .write10(lba: UInt32(lba), blockCount: UInt16(blocks)) : .read10(lba: UInt32(lba), blockCount: UInt16(blocks)),
                        direction: isWrite ? .write : .read, buffer: buffer.baseAddress, byteCount: count), on: c, at: bench.now)
                guard case .accepted = result else {
                    buffer.deallocate()
                    break
                }
                let offset = lba * TargetBackToBackTests.blockSize
                if isWrite { model.replaceSubrange(offset..<offset + count, with: buffer) }
                running[region] = Running(buffer: buffer, offset: offset, isWrite: isWrite)
                issued += 1
            }
            exchange(&random)
            let before = completed
            while let completion = session.nextCompletion() {
                let finished = running.removeValue(forKey: Int(completion.token))
                let command = try #require(finished)
                #expect(completion.residual == .none)
                #expect(completion.transferredByteCount == command.buffer.count)
                if !command.isWrite {
                    #expect(Array(command.buffer) == Array(model[command.offset..<command.offset + command.buffer.count]))
                }
                command.buffer.deallocate()
                completed += 1
            }
            try #require(completed > before, "nothing moves any more")
        }
        #expect(disk == model)
    }
}
