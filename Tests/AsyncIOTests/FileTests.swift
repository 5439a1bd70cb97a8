import AsyncIO
import Glibc
import Testing
import Timebase

@Suite(.serialized, .timeLimit(.minutes(1)))
struct FileTests {
    private func withFile(
        _ options: FileOptions, _ body: (LibaioReactor, FileID, FileRecorder, String) throws -> Void
    ) throws {
        let path = "/var/tmp/mpio-file-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        defer { unlink(path) }
        try withReactor { reactor in
            let recorder = FileRecorder()
            let file = try reactor.performAndWait { try reactor.openFile(path, options: options.union(.create)) }
            try body(reactor, file, recorder, path)
            try reactor.performAndWait { reactor.close(file) }
            try reactor.wait(for: "the file to close") { reactor.counters.openFiles == 0 }
        }
    }

    @Test("data written is data read, past the page cache and through it", arguments: [FileOptions.direct, []])
    func roundTrip(options: FileOptions) throws {
        try withFile(options) { reactor, file, recorder, _ in
            let block = 64 * 1024
            let count = 100
            let bytes = pattern(block * count)
            let back = UnsafeMutableRawBufferPointer.allocate(byteCount: block * count, alignment: 4096)
            defer {
                bytes.deallocate()
                back.deallocate()
            }
            try reactor.performAndWait {
                for number in (0..<count).reversed() {
                    let part = UnsafeRawBufferPointer(rebasing: bytes[number * block..<(number + 1) * block])
                    reactor.submit(
                        .write(from: part, at: UInt64(number * block)), on: file, handler: recorder, token: UInt64(number))
                }
                #expect(recorder.results.isEmpty)
            }
            try reactor.wait(for: "the writes") { recorder.results.count == count }
            try reactor.performAndWait {
                #expect(recorder.results.values.allSatisfy { $0 == .success(block) })
                recorder.results = [:]
                reactor.submit(.synchronize, on: file, handler: recorder, token: 5000)
                for number in 0..<count {
                    let part = UnsafeMutableRawBufferPointer(rebasing: back[number * block..<(number + 1) * block])
                    reactor.submit(
                        .read(into: part, at: UInt64(number * block)), on: file, handler: recorder, token: UInt64(number))
                }
            }
            try reactor.wait(for: "the reads") { recorder.results.count == count + 1 }
            try reactor.performAndWait {
                #expect(recorder.results[5000] == .success(0))
                #expect(equal(UnsafeRawBufferPointer(bytes), UnsafeRawBufferPointer(back)))
                let properties = try reactor.fileProperties(file)
                #expect(properties.byteCount == UInt64(block * count))
                #expect(!properties.isBlockDevice && properties.fileNumber != 0)
                #expect(properties.directAlignment == 1 || options.contains(.direct))
            }
        }
    }

    @Test("a read at the end of a file gives what there is", arguments: [FileOptions.direct, []])
    func endOfFile(options: FileOptions) throws {
        try withFile(options) { reactor, file, recorder, _ in
            let bytes = pattern(8192)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.submit(.write(from: UnsafeRawBufferPointer(bytes), at: 0), on: file, handler: recorder, token: 1)
            }
            try reactor.wait(for: "the write") { recorder.results.count == 1 }
            try reactor.performAndWait {
                reactor.submit(.read(into: bytes, at: 4096), on: file, handler: recorder, token: 2)
                reactor.submit(.read(into: bytes, at: 1 << 20), on: file, handler: recorder, token: 3)
            }
            try reactor.wait(for: "the reads") { recorder.results.count == 3 }
            try reactor.performAndWait {
                #expect(recorder.results[2] == .success(4096))
                #expect(recorder.results[3] == .success(0))
            }
        }
    }

    @Test("a deallocated range reads as zeroes", arguments: [FileOptions.direct, []])
    func deallocate(options: FileOptions) throws {
        try withFile(options) { reactor, file, recorder, _ in
            let bytes = pattern(65_536)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.submit(.write(from: UnsafeRawBufferPointer(bytes), at: 0), on: file, handler: recorder, token: 1)
            }
            try reactor.wait(for: "the write") { recorder.results.count == 1 }
            try reactor.performAndWait {
                reactor.submit(.deallocate(offset: 8192, byteCount: 16_384), on: file, handler: recorder, token: 2)
            }
            try reactor.wait(for: "the hole") { recorder.results.count == 2 }
            try reactor.performAndWait {
                #expect(recorder.results[2] == .success(0))
                reactor.submit(.read(into: bytes, at: 0), on: file, handler: recorder, token: 3)
            }
            try reactor.wait(for: "the read") { recorder.results.count == 3 }
            try reactor.performAndWait {
                let original = pattern(65_536)
                defer { original.deallocate() }
                #expect(bytes[8192..<24_576].allSatisfy { $0 == 0 })
                #expect(equal(.init(rebasing: bytes[..<8192]), .init(rebasing: original[..<8192])))
                #expect(equal(.init(rebasing: bytes[24_576...]), .init(rebasing: original[24_576...])))
            }
        }
    }

    @Test("what O_DIRECT cannot do is said in words, and not from inside the call")
    func misaligned() throws {
        try withFile(.direct) { reactor, file, recorder, path in
            let bytes = pattern(16_384)
            defer { bytes.deallocate() }
            let shifted = UnsafeMutableRawBufferPointer(rebasing: bytes[1..<4097])
            try reactor.performAndWait {
                let alignment = try reactor.fileProperties(file).directAlignment
                #expect(alignment >= 512)
                reactor.submit(.read(into: shifted, at: 0), on: file, handler: recorder, token: 1)
                reactor.submit(.write(from: .init(rebasing: bytes[..<4096]), at: 100), on: file, handler: recorder, token: 2)
                reactor.submit(.read(into: .init(rebasing: bytes[..<1000]), at: 0), on: file, handler: recorder, token: 3)
                reactor.submit(
                    .read(into: .init(rebasing: bytes[..<4096]), at: UInt64.max & ~4095), on: file, handler: recorder, token: 4)
                reactor.submit(.deallocate(offset: .max, byteCount: 1), on: file, handler: recorder, token: 5)
                #expect(recorder.results.isEmpty)
            }
            try reactor.wait(for: "the errors") { recorder.results.count == 5 }
            try reactor.performAndWait {
                for (token, result) in recorder.results {
                    guard case .failure(let error) = result else {
                        Issue.record("accepted")
                        continue
                    }
                    #expect(error.code == EINVAL && error.operation.contains(path))
                    #expect(error.operation.contains(token < 4 ? "multiples of" : "largest offset"))
                }
            }
        }
    }

    @Test("a closed file refuses, but finishes what it had begun")
    func closeWithOperations() throws {
        try withFile([.direct]) { reactor, file, recorder, _ in
            let bytes = pattern(1 << 20)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.submit(.write(from: UnsafeRawBufferPointer(bytes), at: 0), on: file, handler: recorder, token: 1)
                reactor.close(file)
                reactor.submit(.synchronize, on: file, handler: recorder, token: 2)
            }
            try reactor.wait(for: "both") { recorder.results.count == 2 }
            try reactor.performAndWait {
                #expect(recorder.results[1] == .success(bytes.count))
                guard case .failure(let error) = recorder.results[2] else {
                    Issue.record("a closed file was synchronized")
                    return
                }
                #expect(error.code == EBADF)
                #expect(throws: IOError.self) { try reactor.fileProperties(file) }
            }
        }
    }

    @Test("an operation that the kernel refuses stops none of those behind it")
    func refusedInBatch() throws {
        try withFile(.direct) { reactor, file, recorder, path in
            let bytes = pattern(4096)
            defer { bytes.deallocate() }
            try reactor.performAndWait {
                reactor.submit(.write(from: UnsafeRawBufferPointer(bytes), at: 0), on: file, handler: recorder, token: 1000)
            }
            try reactor.wait(for: "the write") { recorder.results.count == 1 }
            let back = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096 * 100, alignment: 4096)
            defer { back.deallocate() }
            try reactor.performAndWait {
                let readOnly = try reactor.openFile(path, options: [.readOnly, .direct])
                for number in 0..<100 {
                    let part = UnsafeMutableRawBufferPointer(rebasing: back[number * 4096..<(number + 1) * 4096])
                    if number % 3 == 0 {
                        // Written through a descriptor that is open for reading: io_submit itself says no.
                        reactor.submit(.write(from: .init(part), at: 0), on: readOnly, handler: recorder, token: UInt64(number))
                    } else {
                        reactor.submit(.read(into: part, at: 0), on: readOnly, handler: recorder, token: UInt64(number))
                    }
                }
                reactor.close(readOnly)
            }
            try reactor.wait(for: "a hundred results") { recorder.results.count == 101 }
            try reactor.performAndWait {
                for number in 0..<100 {
                    let result = recorder.results[UInt64(number)]
                    if number % 3 == 0 {
                        guard case .failure(let error) = result else {
                            Issue.record("written to a read-only file")
                            continue
                        }
                        #expect(error.code == EBADF)
                    } else {
                        #expect(result == .success(4096))
                        #expect(equal(.init(rebasing: back[number * 4096..<(number + 1) * 4096]), .init(bytes)))
                    }
                }
                #expect(reactor.counters.fileOperationsInFlight == 0 && reactor.counters.openFiles == 1)
            }
        }
    }

    @Test("stop waits for the operations under way and reports them")
    func stopWaits() throws {
        let path = "/var/tmp/mpio-file-\(getpid())-stop"
        defer { unlink(path) }
        let bytes = pattern(4 << 20)
        defer { bytes.deallocate() }
        let reactor = try LibaioReactor()
        let recorder = FileRecorder()
        try reactor.start()
        try reactor.performAndWait {
            let file = try reactor.openFile(path, options: [.direct, .create])
            for number in 0..<64 {
                let part = UnsafeRawBufferPointer(rebasing: bytes[number << 16..<(number + 1) << 16])
                reactor.submit(.write(from: part, at: UInt64(number << 16)), on: file, handler: recorder, token: UInt64(number))
            }
            reactor.submit(.deallocate(offset: 0, byteCount: 4096), on: file, handler: recorder, token: 100)
        }
        reactor.stop()
        #expect(recorder.results.count == 65)
    }

    @Test("files that cannot be opened say so")
    func openErrors() throws {
        try withReactor { reactor in
            try reactor.performAndWait {
                #expect(throws: IOError(code: ENOENT, operation: "open /nonexistent/file")) {
                    try reactor.openFile("/nonexistent/file", options: [.readOnly])
                }
                let error = #expect(throws: IOError.self) { try reactor.openFile("/tmp", options: [.readOnly]) }
                #expect(error?.code == ENOTBLK)
                #expect(error?.description.contains("/tmp") == true)
                #expect(reactor.counters.openFiles == 0)
            }
        }
    }
}
