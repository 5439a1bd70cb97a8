import AsyncIO
import Foundation
import SCSI
import TestSupport
import Testing

@testable import ISCSITarget

/// Blocks behind a unit: each kind of storage, at the backend's own door.
@Suite(.serialized) struct BackendTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("backends") }

    /// Starts operations on a backend, on a reactor of its own, and waits for them.
    private final class Rig: BackendClient, @unchecked Sendable {
        let reactor: LibaioReactor
        // On the reactor's thread.
        private(set) var backend: (any LogicalUnitBackend)!
        private var ends: [UInt32: (BackendFailure?) -> Void] = [:]
        private var lastToken: UInt32 = 0
        nonisolated(unsafe) let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)

        init(_ make: @escaping @Sendable (LibaioReactor) throws -> any LogicalUnitBackend) throws {
            reactor = try LibaioReactor()
            try reactor.start()
            let reactor = reactor
            nonisolated(unsafe) var made: (any LogicalUnitBackend)?
            try RunningTarget.run(on: reactor) { made = try make(reactor) }
            backend = made
            backend.client = self
        }

        deinit { memory.deallocate() }

        func backendCompleted(token: UInt32, failure: BackendFailure?) { ends.removeValue(forKey: token)?(failure) }

        /// The end of one operation.
        func perform(_ body: @escaping @Sendable (any LogicalUnitBackend, UInt32) -> BackendProgress) -> BackendFailure? {
            let done = DispatchSemaphore(value: 0)
            nonisolated(unsafe) var failure: BackendFailure?
            reactor.enqueue { [self] in
                lastToken += 1
                ends[lastToken] = {
                    failure = $0
                    done.signal()
                }
                switch body(backend, lastToken) {
                case .pending: break
                case .done: backendCompleted(token: lastToken, failure: nil)
                case .failed(let why): backendCompleted(token: lastToken, failure: why)
                }
            }
            done.wait()
            return failure
        }

        func write(_ pattern: UInt8, _ range: Range<UInt64>) -> BackendFailure? {
            memset(memory.baseAddress!, Int32(pattern), range.count)
            return perform { [self] in
                $0.write(offset: range.lowerBound, from: UnsafeRawBufferPointer(rebasing: memory[..<range.count]), token: $1)
            }
        }

        func read(_ range: Range<UInt64>) -> [UInt8] {
            memset(memory.baseAddress!, 0xEE, range.count)
            let failure = perform { [self] in
                $0.read(offset: range.lowerBound, into: UnsafeMutableRawBufferPointer(rebasing: memory[..<range.count]), token: $1)
            }
            return failure == nil ? Array(memory[..<range.count]) : []
        }

        func extents(from offset: UInt64, count: Int) -> [BackendExtent] {
            memset(memory.baseAddress!, 0, count * MemoryLayout<BackendExtent>.stride)
            let failure = perform { [self] in
                let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<(count * MemoryLayout<BackendExtent>.stride)])
                return $0.listExtents(from: offset, into: part.bindMemory(to: BackendExtent.self), token: $1)
            }
            #expect(failure == nil)
            return (0..<count).map { memory.load(fromByteOffset: $0 * MemoryLayout<BackendExtent>.stride, as: BackendExtent.self) }
                .filter { $0.byteCount > 0 }
        }

        func stop() {
            _ = perform { backend, _ in
                backend.close()
                return .done
            }
            reactor.stop()
        }
    }

    private func rig(_ kind: String) throws -> Rig {
        let path = directory.file("\(kind).img")
        return try Rig { reactor in
            if kind == "memory" { return MemoryBackend(byteCount: 16 << 20) }
            return try FileBackend(path: path, byteCount: 16 << 20, blockSize: 512, isReadOnly: false, port: reactor)
        }
    }

    @Test(arguments: ["memory", "file"])
    func zeroesAndHolesReadAsZeroesAndNothingBesideThem(kind: String) throws {
        let rig = try rig(kind)
        #expect(rig.write(7, 0..<1 << 20) == nil)
        if rig.backend.writesZeroes {
            #expect(rig.perform { $0.writeZeroes(offset: 4096, byteCount: 8192, token: $1) } == nil)
            let bytes = rig.read(0..<16_384)
            #expect(bytes[..<4096].allSatisfy { $0 == 7 } && bytes[4096..<12_288].allSatisfy { $0 == 0 })
            #expect(bytes[12_288...].allSatisfy { $0 == 7 })
        } else {
            #expect(kind == "memory", "there the unit writes zeroes as data")
        }
        // Not whole chunks, or pages.
        #expect(rig.perform { $0.deallocate(offset: 65_536 - 512, byteCount: 65_536 + 1024, token: $1) } == nil)
        let bytes = rig.read(0..<1 << 18)
        #expect(bytes[(65_536 - 512)..<(2 * 65_536 + 512)].allSatisfy { $0 == 0 })
        #expect(bytes[65_536 - 513] == 7 && bytes[2 * 65_536 + 512] == 7)
        #expect(rig.perform { $0.synchronize(token: $1) } == nil)
        rig.stop()
    }

    @Test func aNullUnitForgetsAndReadsZeroes() throws {
        let rig = try Rig { _ in NullBackend(byteCount: 1 << 20) }
        #expect(rig.write(7, 0..<4096) == nil)
        #expect(rig.read(0..<4096).allSatisfy { $0 == 0 })
        #expect(!rig.backend.isThinlyProvisioned && !rig.backend.writesZeroes && !rig.backend.comparesAndWrites)
        #expect(rig.extents(from: 4096, count: 4) == [BackendExtent(byteCount: (1 << 20) - 4096, isMapped: true)])
        rig.stop()
    }

    @Test(arguments: ["memory", "file"])
    func holesAreToldFromData(kind: String) throws {
        let rig = try rig(kind)
        #expect(rig.write(7, 1 << 20..<(1 << 20) + 131_072) == nil)
        #expect(rig.write(7, 4 << 20..<(4 << 20) + 65_536) == nil)
        let all = rig.extents(from: 0, count: 16)
        #expect(all.map(\.byteCount).reduce(0, +) == 16 << 20, "\(all)")
        func isMapped(_ offset: UInt64) -> Bool? {
            var position: UInt64 = 0
            for extent in all {
                position += extent.byteCount
                if offset < position { return extent.isMapped }
            }
            return nil
        }
        #expect(isMapped(0) == false && isMapped((1 << 20) - 1) == false)
        #expect(isMapped(1 << 20) == true && isMapped((1 << 20) + 131_071) == true)
        #expect(isMapped((1 << 20) + 131_072) == false)
        #expect(isMapped(4 << 20) == true && isMapped((4 << 20) + 65_536) == false)
        // From within, and no more than asked.
        #expect(rig.extents(from: (1 << 20) + 65_536, count: 1) == [BackendExtent(byteCount: 65_536, isMapped: true)])
        #expect(rig.perform { $0.deallocate(offset: 1 << 20, byteCount: 131_072, token: $1) } == nil)
        #expect(rig.extents(from: 1 << 20, count: 1) == [BackendExtent(byteCount: 3 << 20, isMapped: false)])
        rig.stop()
    }

    /// What stands on the backends: WRITE SAME, COMPARE AND WRITE, ORWRITE, UNMAP and GET LBA STATUS.
    @Test(arguments: ["file", "memory-4k", "file-4k"])
    func thePeersTestsOfBlocksPass(kind: String) async throws {
        let storage = kind.hasPrefix("file") ? "file:\(directory.file("blocks.img"))" : "memory"
        let running = try RunningTarget(
            portalCount: 2, units: ["0=\(storage),size=64M" + (kind.hasSuffix("4k") ? ",block-size=4096" : "")])
        // MultipathIO is first: it clears 256 blocks, and expects zeroes in one more.
        let suites = kind == "file"
            ? ["MultipathIO", "CompareAndWrite", "WriteSame10", "WriteSame16", "OrWrite", "Unmap", "GetLBAStatus"]
            : ["MultipathIO", "CompareAndWrite", "WriteSame16", "GetLBAStatus"]
        for suite in suites {
            let result = try await CommandRunner.run(
                "iscsi-test-cu", ["-d", "-S", "-n", "-t", "ALL.\(suite)", running.url(0), running.url(0, portal: 1)],
                timeout: .seconds(60))
            let summary = result.standardOutput.split(separator: "\n").first { $0.contains(" tests ") }
            let numbers = summary.map { $0.split(separator: " ").compactMap { Int($0) } } ?? []
            #expect(numbers.count >= 4 && numbers[0] > 0 && numbers[3] == 0, "\(suite): \(result.standardOutput.suffix(3000))")
        }
        try running.stop()
    }
}

/// A backend with a COMPARE AND WRITE and a FUA of its own.
private final class CapableBackend: LogicalUnitBackend {
    let inner = MemoryBackend(byteCount: 1 << 20)
    weak var client: (any BackendClient)?
    var calls: [String] = []
    var byteCount: UInt64 { inner.byteCount }
    var isThinlyProvisioned: Bool { true }
    var deallocatedContent: DeallocatedContent { .zeroesWhereDeallocated }
    var writesZeroes: Bool { true }
    var comparesAndWrites: Bool { true }
    var compareAndWriteLimitByteCount: Int { 4096 }
    var writesThrough: Bool { true }

    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress {
        calls.append("read")
        return inner.read(offset: offset, into: memory, token: token)
    }
    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        calls.append("write")
        return inner.write(offset: offset, from: memory, token: token)
    }
    func writeThrough(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress {
        calls.append("writeThrough")
        return inner.write(offset: offset, from: memory, token: token)
    }
    func synchronize(token: UInt32) -> BackendProgress {
        calls.append("synchronize")
        return .done
    }
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        calls.append("deallocate")
        return .done
    }
    func writeZeroes(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress {
        calls.append("writeZeroes")
        return inner.deallocate(offset: offset, byteCount: byteCount, token: token)
    }
    func compareAndWrite(
        offset: UInt64, expected: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer, token: UInt32
    ) -> BackendProgress {
        calls.append("compareAndWrite")
        #expect(expected.baseAddress! + expected.count == new.baseAddress!)
        var old = [UInt8](repeating: 0, count: expected.count)
        _ = old.withUnsafeMutableBytes { inner.read(offset: offset, into: $0, token: token) }
        if let index = zip(old, expected).firstIndexOfDifference { return .failed(.miscompare(offset: index)) }
        return inner.write(offset: offset, from: new, token: token)
    }
    func close() {}
}

extension Zip2Sequence where Sequence1.Element == UInt8, Sequence2.Element == UInt8 {
    fileprivate var firstIndexOfDifference: Int? {
        for (index, pair) in enumerated() where pair.0 != pair.1 { return index }
        return nil
    }
}

@Suite struct CapableBackendTests {
    private let backend = CapableBackend()
    let bench: DeviceBench

    init() { bench = DeviceBench(byteCount: 1 << 20, backend: backend) }

    @Test func compareAndWriteIsTheBackendsOwn() {
        let nexus = bench.nexus()
        let (old, new) = ([UInt8](repeating: 0, count: 512), bytes(512))
        #expect(bench.run(.compareAndWrite(lba: 3, blockCount: 1), nexus, dataOut: old + new).status == .good)
        #expect(backend.calls == ["compareAndWrite"])
        #expect(bench.run(.read(lba: 3, blockCount: 1), nexus).data == new)
        var almost = new
        almost[100] ^= 1
        let miss = bench.run(.compareAndWrite(lba: 3, blockCount: 1), nexus, dataOut: almost + old)
        #expect(miss.sense?.key == .miscompare && miss.sense?.information == 100)
        #expect(bench.run(.read(lba: 3, blockCount: 1), nexus).data == new, "nothing was written")
        // More than it takes in one go, and the block limits page says so.
        let long = [UInt8](repeating: 0, count: 2 * 9 * 512)
        #expect(bench.run(.compareAndWrite(lba: 0, blockCount: 9), nexus, dataOut: long).additional == .invalidFieldInCommand)
        let limits = BlockLimits(parsing: bench.run(.inquiry(page: .blockLimits, allocationByteCount: 96), nexus).data)
        #expect(limits?.maxCompareAndWriteBlockCount == 8)
    }

    @Test func forcedUnitAccessIsTheBackendsOwn() {
        let nexus = bench.nexus()
        #expect(bench.run(.write(lba: 0, blockCount: 1, options: .forceUnitAccess), nexus, dataOut: bytes(512)).status == .good)
        #expect(bench.run(.write(lba: 0, blockCount: 1), nexus, dataOut: bytes(512)).status == .good)
        #expect(backend.calls == ["writeThrough", "write"])
    }

    /// UNMAP may leave what is there; WRITE SAME with UNMAP has promised zeroes.
    @Test func zeroesThatWerePromisedAreNotLeftToUnmap() {
        let nexus = bench.nexus()
        #expect(bench.run(.write(lba: 0, blockCount: 8), nexus, dataOut: bytes(4096)).status == .good)
        let same = bench.run(.writeSame16(lba: 0, blockCount: 8, options: .unmap), nexus, dataOut: [UInt8](repeating: 0, count: 512))
        #expect(same.status == .good)
        #expect(backend.calls == ["write", "writeZeroes"])
        #expect(bench.run(.read(lba: 0, blockCount: 8), nexus).data.allSatisfy { $0 == 0 })
    }

    @Test func aNewCapacityIsAUnitAttention() {
        let late = GrowingBackend()
        let bench = DeviceBench(byteCount: 1 << 20, backend: late)
        let nexus = bench.nexus()
        late.byteCount = 2 << 20
        bench.unit.backendCapacityChanged()
        #expect(bench.run(.testUnitReady(), nexus).additional == .capacityDataChanged)
        #expect(bench.unit.blockCount == 4096)
        bench.unit.backendCapacityChanged()
        #expect(bench.run(.testUnitReady(), nexus).status == .good, "once")
    }
}

private final class GrowingBackend: LogicalUnitBackend {
    var byteCount: UInt64 = 1 << 20
    weak var client: (any BackendClient)?
    var isThinlyProvisioned: Bool { false }
    func read(offset: UInt64, into memory: UnsafeMutableRawBufferPointer, token: UInt32) -> BackendProgress { .done }
    func write(offset: UInt64, from memory: UnsafeRawBufferPointer, token: UInt32) -> BackendProgress { .done }
    func synchronize(token: UInt32) -> BackendProgress { .done }
    func deallocate(offset: UInt64, byteCount: UInt64, token: UInt32) -> BackendProgress { .done }
    func close() {}
}
