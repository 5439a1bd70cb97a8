import Foundation
import MPIO
import Testing
import TestSupport

/// The same bytes for mpio, for QEMU's initiator and in the target's file; large disks, large blocks, large requests
/// and the rarer commands, on a real tgtd.
@Suite(.serialized)
struct DataInteropTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory("data")
    }

    /// Bytes that do not repeat within a disk.
    private static func fill(_ buffer: IOBuffer, seed: UInt64) {
        var value = seed | 1
        for offset in stride(from: 0, to: buffer.byteCount, by: 8) {
            value = value &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            buffer.bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
        }
    }

    private static func isEqual(_ left: IOBuffer, _ right: IOBuffer) -> Bool {
        left.byteCount == right.byteCount && memcmp(left.bytes.baseAddress!, right.bytes.baseAddress!, left.byteCount) == 0
    }

    private func server(
        byteCount: UInt64 = 16 << 20, blockByteCount: Int = 512, number: Int = 1, portals: [LoopbackPortal]? = nil,
        parameters: [(name: String, value: String)] = []
    ) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            number: number, backing: .file(path: directory.file("unit.img"), byteCount: byteCount),
            blockByteCount: blockByteCount, scsiID: "6001405abcdef01234567890abcdef01", serial: "abc1",
            parameters: parameters)
        return try TgtServer(
            TgtConfiguration(portals: portals ?? LoopbackPortal.unused(count: 2), logicalUnits: [unit]))
    }

    // MARK: QEMU

    @Test func qemuReadsBackWhatWasWritten() async throws {
        let server = try TgtServer.withFile(byteCount: 16 << 20, in: directory)
        let buffer = IOBuffer(byteCount: 16 << 20)
        Self.fill(buffer, seed: 1)
        try await DiskSetup(server).withDisk(in: directory) { disk in
            // Sizes from one block to more than a command carries, round and round over the four paths.
            let sizes = [512, 4096, 1536, 65_536, 1 << 20, 262_144 + 512, 3 << 20]
            var offset = 0
            var turn = 0
            while offset < buffer.byteCount {
                let count = min(sizes[turn % sizes.count], buffer.byteCount - offset)
                turn += 1
                try await disk.write(buffer, range: offset..<(offset + count), at: UInt64(offset))
                offset += count
            }
            try await disk.flush()
            for path in try await disk.paths { #expect(path.bytesWritten > 0) }
        }
        let copy = try directory.file("expected.img", contents: Array(buffer.bytes))
        for portal in 0..<4 { try await QemuIO(server.url(portal: portal)).compare(with: copy) }
        try await QemuIO(server.backingFile).compare(with: copy)
    }

    @Test func readsBackWhatQemuWrote() async throws {
        let server = try TgtServer.withFile(byteCount: 16 << 20, in: directory)
        let expected = IOBuffer(byteCount: 16 << 20)
        Self.fill(expected, seed: 2)
        try await QemuIO(server.url(portal: 2)).copy(fromFile: directory.file("source.img", contents: Array(expected.bytes)))
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let buffer = IOBuffer(byteCount: 16 << 20)
            for round in 0..<4 {
                memset(buffer.bytes.baseAddress!, 0, buffer.byteCount)
                let count = [4096, 65_536, 1 << 20, 4 << 20][round]
                for offset in stride(from: 0, to: buffer.byteCount, by: count) {
                    try await disk.read(into: buffer, range: offset..<(offset + count), at: UInt64(offset))
                }
                #expect(Self.isEqual(buffer, expected))
            }
        }
    }

    @Test func bothWriteTheSameDiskInTurn() async throws {
        let server = try TgtServer.withFile(byteCount: 8 << 20, portalCount: 2, in: directory)
        let qemu = QemuIO(server.url())
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let buffer = IOBuffer(byteCount: 8192)
            for pattern in UInt8(1)...3 {
                memset(buffer.bytes.baseAddress!, Int32(pattern), buffer.byteCount)
                try await disk.write(buffer, at: 65_536, options: .forceUnitAccess)
                try await qemu.verify(pattern: pattern, at: 65_536, byteCount: 8192)
                try await qemu.write(pattern: pattern + 100, at: 65_536 + 512, byteCount: 1024)
                try await disk.read(into: buffer, at: 65_536)
                #expect(buffer[511] == pattern && buffer[512] == pattern + 100)
                #expect(buffer[1535] == pattern + 100 && buffer[1536] == pattern)
            }
        }
    }

    // MARK: Shapes of disks

    @Test func blocksOf4096Bytes() async throws {
        let server = try server(blockByteCount: 4096)
        try await DiskSetup(server).withDisk(in: directory) { disk in
            #expect(disk.blockSize == 4096 && disk.capacityByteCount == 16 << 20)
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 1000)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
            let small = IOBuffer(byteCount: 512)
            await #expect(throws: DiskError.misaligned(offset: 0, byteCount: 512, blockSize: 4096)) {
                try await disk.read(into: small, at: 0)
            }
        }
    }

    @Test func moreThanTwoTebibytes() async throws {
        let server = try server(byteCount: 3 << 40)
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let capacity: UInt64 = 3 << 40
            #expect(disk.capacityByteCount == capacity)
            let offsets: [UInt64] = [0, (2 << 40) - (8 << 20), capacity - (16 << 20)]
            for offset in offsets {
                let load = VerifiedLoad(disk, .init(blockCount: 4096, offset: offset))
                try await load.run(requestCount: 300)
                try await load.verifyDisk()
                try load.verify(file: server.backingFile)
                expectClean(load)
            }
            let buffer = IOBuffer(byteCount: 1024)
            await #expect(throws: DiskError.outOfRange(offset: capacity - 512, byteCount: 1024, capacityByteCount: capacity)) {
                try await disk.read(into: buffer, at: capacity - 512)
            }
            let count = try await disk.requestCounts().reduce(0, +)
            await #expect(throws: DiskError.self) { try await disk.write(buffer, at: capacity) }
            await #expect(throws: DiskError.self) { try await disk.read(into: buffer, at: UInt64.max - 511) }
            #expect(try await disk.requestCounts().reduce(0, +) == count)
        }
    }

    @Test(arguments: [255, 256, 300, 1000])
    func unitNumbersBeyondAByte(number: Int) async throws {
        let server = try server(number: number)
        try await DiskSetup(server, lun: number).withDisk(in: directory) { disk in
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 100)
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
            #expect(try await disk.paths.map(\.lun) == [UInt64(number), UInt64(number)])
        }
    }

    @Test func portalsOfIPv6() async throws {
        let port = try LoopbackPortal.unused()[0].port
        let server = try server(
            portals: [LoopbackPortal(address: "::1", port: port)] + LoopbackPortal.unused())
        try await DiskSetup(server).withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 200)
            expectClean(load)
            let paths = try await disk.paths
            #expect(paths.map(\.requests) == [100, 100])
            #expect(paths[0].id == "[::1]:\(port)" && paths[0].source == "::1")
        }
    }

    // MARK: Requests

    @Test func aRequestOf16MebibytesIsSplitOverThePaths() async throws {
        let server = try TgtServer.withFile(byteCount: 64 << 20, in: directory)
        try await DiskSetup(server).withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates(Array(repeating: .activeOptimized, count: 4)))
            let (buffer, back) = (IOBuffer(byteCount: 16 << 20), IOBuffer(byteCount: 16 << 20))
            Self.fill(buffer, seed: 3)
            let start = ContinuousClock.now
            try await disk.write(buffer, at: 5 << 20)
            try await disk.read(into: back, at: 5 << 20)
            print("16 MiB written and read: \(start.duration(to: .now))")
            #expect(Self.isEqual(buffer, back))
            #expect(try await disk.requestCounts() == [8, 8, 8, 8])
            // To the end, in an odd number of blocks.
            try await disk.write(buffer, range: 0..<(2 << 20) + 512, at: (62 << 20) - 512)
            try await disk.read(into: back, range: 0..<(2 << 20) + 512, at: (62 << 20) - 512)
            #expect(memcmp(buffer.bytes.baseAddress!, back.bytes.baseAddress!, (2 << 20) + 512) == 0)
        }
    }

    @Test func aLargeRequestGoesOnOverTheOtherPathsWhenOneIsCut() async throws {
        let server = try TgtServer.withFile(byteCount: 64 << 20, portalCount: 2, in: directory)
        let link = try FaultyLink(to: server.portals[0])
        var setup = DiskSetup(server)
        setup.paths[0] = .init(target: server.targetName, portal: link.portal)
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized]))
            let (buffer, back) = (IOBuffer(byteCount: 16 << 20), IOBuffer(byteCount: 16 << 20))
            for round in UInt64(0)..<4 {
                Self.fill(buffer, seed: 10 + round)
                let passed = link.byteCount(.toTarget)
                let redriven = try await disk.redrivenCount
                async let writing: Void = disk.write(buffer, at: 0)
                #expect(try await eventually(every: .microseconds(200)) { link.byteCount(.toTarget) > passed + 500_000 })
                link.reset()
                try await writing
                #expect(try await disk.redrivenCount > redriven)
                try await disk.read(into: back, at: 0)
                #expect(Self.isEqual(buffer, back))
                #expect(try await disk.waitForPath(0, .activeOptimized))
            }
        }
    }

    @Test func zeroesAndUnmapsWhatItIsTold() async throws {
        let server = try server(parameters: [("thin_provisioning", "1")])
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let (buffer, back) = (IOBuffer(byteCount: 4 << 20), IOBuffer(byteCount: 4 << 20))
            Self.fill(buffer, seed: 4)
            try await disk.write(buffer, at: 0)
            try await disk.writeZeroes(at: 1 << 20, byteCount: 65_536 + 512)
            try await disk.read(into: back, at: 0)
            memset(buffer.bytes.baseAddress! + (1 << 20), 0, 65_536 + 512)
            #expect(Self.isEqual(buffer, back))

            print("unmap: \(String(describing: disk.device.provisioning)), \(String(describing: disk.device.blockLimits))")
            try await disk.unmap(at: 2 << 20, byteCount: 1 << 20)
            try await disk.read(into: back, at: 0)
            memset(buffer.bytes.baseAddress! + (2 << 20), 0, 1 << 20)
            #expect(Self.isEqual(buffer, back))

            // More zeroes than one command carries.
            try await disk.writeZeroes(at: 0, byteCount: disk.capacityByteCount)
            try await disk.read(into: back, at: 0)
            #expect(back.bytes.allSatisfy { $0 == 0 })
        }
    }

    @Test func refusesToUnmapWhereTheUnitCannot() async throws {
        let server = try server()
        try await DiskSetup(server).withDisk(in: directory) { disk in
            await #expect(throws: DiskError.unsupported) { try await disk.unmap(at: 0, byteCount: 4096) }
            try await disk.writeZeroes(at: 0, byteCount: 4096)
        }
    }

    /// tgtd claims COMPARE AND WRITE in page B0h and refuses it: its own verdict reaches the caller, and no path is
    /// blamed.
    @Test func compareAndWriteEndsWithTheTargetsVerdict() async throws {
        let server = try server()
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let buffer = IOBuffer(byteCount: 1024)
            do {
                try await disk.compareAndWrite(buffer, at: 0)
                Issue.record("this tgtd can COMPARE AND WRITE after all: test it")
            } catch DiskError.target(let status, let sense) {
                print("compareAndWrite: \(status), \(String(describing: sense))")
                #expect(sense?.key == .illegalRequest)
            } catch DiskError.unsupported {}
            #expect(try await disk.status.state == .optimal)
        }
    }

    @Test func aWriteProtectedUnitSaysSo() async throws {
        let server = try server(parameters: [("readonly", "1")])
        try await DiskSetup(server).withDisk(in: directory) { disk in
            let buffer = IOBuffer(byteCount: 512)
            try await disk.read(into: buffer, at: 0)
            do {
                try await disk.write(buffer, at: 0)
                Issue.record("written")
            } catch DiskError.target(_, let sense) {
                #expect(sense?.key == .dataProtect, "\(String(describing: sense))")
            }
            #expect(try await disk.status.state == .optimal)
        }
    }

    // MARK: Devices

    /// A file as a path beside iSCSI ones. A file has no identity of its own: the configured one vouches for it.
    @Test func aFileIsAPathBesideSessions() async throws {
        let server = try server()
        var setup = DiskSetup(server)
        setup.identity = "naa.6001405abcdef01234567890abcdef01"
        setup.devices = [server.backingFile]
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized, .activeOptimized]))
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 900)
            #expect(try await disk.requestCounts() == [300, 300, 300])
            // The targets die; the device carries on.
            load.start()
            try await load.proceed(200)
            server.kill9()
            try await load.proceed(200)
            #expect(try await disk.waitForStates([.failed, .failed, .activeOptimized]))
            try server.restart()
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized, .activeOptimized]))
            try await load.stop()
            try await load.verifyDisk()
            try load.verify(file: server.backingFile)
            expectClean(load)
            let path = try await disk.paths[2]
            #expect(path.transport == .device && path.id == server.backingFile)
        }
    }

    @Test func aFileAloneIsADisk() async throws {
        var setup = DiskSetup()
        setup.identity = "naa.6001405abcdef01234567890abcdef01"
        setup.devices = [try directory.sparseFile("alone.img", byteCount: 32 << 20)]
        try await setup.withDisk(in: directory) { disk in
            let load = VerifiedLoad(disk)
            try await load.run(requestCount: 500)
            try await load.verifyDisk()
            try load.verify(file: setup.devices[0])
            expectClean(load)
            try await disk.writeZeroes(at: 0, byteCount: 8 << 20)
            try await disk.flush()
            let buffer = IOBuffer(byteCount: 4096)
            try await disk.read(into: buffer, at: (8 << 20) - 4096)
            #expect(buffer.bytes.allSatisfy { $0 == 0 })
            await #expect(throws: DiskError.outOfRange(offset: 32 << 20, byteCount: 4096, capacityByteCount: 32 << 20)) {
                try await disk.read(into: buffer, at: 32 << 20)
            }
        }
    }

    @Test func aFileForWhichNobodyVouchesIsRefusedBesideAnything() async throws {
        let server = try server()
        var setup = DiskSetup(server)
        setup.devices = [server.backingFile]
        try await setup.withDisk(in: directory) { disk in
            #expect(try await disk.waitForStates([.activeOptimized, .activeOptimized, .refused]))
            let words = try #require(try await disk.paths[2].lastError?.detail)
            print("a file without an identity: \(words)")
            let load = VerifiedLoad(disk, .init(blockCount: 2048))
            try await load.run(requestCount: 100)
            expectClean(load)
            #expect(try await disk.requestCounts()[2] == 0)
        }
    }

    @Test func aFileOfAnotherSizeIsRefused() async throws {
        let server = try server()
        var setup = DiskSetup(server)
        setup.identity = "naa.6001405abcdef01234567890abcdef01"
        setup.devices = [try directory.sparseFile("other.img", byteCount: 32 << 20)]
        try await setup.withDisk(in: directory) { disk in
            #expect(try await eventually { try await disk.paths.contains { $0.state == .refused } })
            let refused = try #require(try await disk.paths.first { $0.state == .refused }?.lastError?.detail)
            #expect(refused.contains("\((32 << 20) / 512)") && refused.contains("\((16 << 20) / 512)"), "\(refused)")
        }
    }
}
