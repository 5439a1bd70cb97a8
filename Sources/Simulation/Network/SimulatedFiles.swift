public import AsyncIO
import Glibc

/// A simulated process's open files.
struct SimulatedFiles {
    var open: [UInt64: SimulatedFile] = [:]
    var next: UInt64 = 0
}

/// A file of the simulated machine, kept by whoever made the world.
final class SimulatedFile {
    var bytes: [UInt8]
    let number: UInt64

    init(byteCount: Int, number: UInt64) {
        bytes = [UInt8](repeating: 0, count: byteCount)
        self.number = number
    }
}

struct FileWork {
    var file: FileID
    var target: SimulatedFile
    var operation: FileOperation
    var handler: any FileHandler
    var token: UInt64
}

extension SimulatedIO {
    public func openFile(_ path: String, options: FileOptions) throws(IOError) -> FileID {
        guard let file = network.files[path] else { throw IOError(code: ENOENT, operation: "open \(path)") }
        files.next += 1
        files.open[files.next] = file
        return FileID(rawValue: files.next)
    }

    public func fileProperties(_ file: FileID) throws(IOError) -> FileProperties {
        guard let target = files.open[file.rawValue] else { throw IOError(code: EBADF, operation: "stat") }
        return FileProperties(
            byteCount: UInt64(target.bytes.count), isBlockDevice: false, blockSize: 512, directAlignment: 512,
            deviceNumber: 1, fileNumber: target.number)
    }

    public func submit(_ operation: FileOperation, on file: FileID, handler: any FileHandler, token: UInt64) {
        guard let target = files.open[file.rawValue] else { preconditionFailure("submitted on a closed file") }
        let work = FileWork(file: file, target: target, operation: operation, handler: handler, token: token)
        world.after(world.random.spreadDuration(.microseconds(20)...(.milliseconds(5)))) { [weak self] in
            self?.post(.file(work))
        }
    }

    public func close(_ file: FileID) { files.open[file.rawValue] = nil }

    func complete(_ work: FileWork) {
        let count: Int
        switch work.operation {
        case .read(let memory, let offset):
            count = max(0, min(memory.count, work.target.bytes.count - Int(offset)))
            work.target.bytes.withUnsafeBytes {
                memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + count]))
            }
        case .write(let memory, let offset):
            count = max(0, min(memory.count, work.target.bytes.count - Int(offset)))
            work.target.bytes.replaceSubrange(Int(offset)..<Int(offset) + count, with: memory.prefix(count))
        case .synchronize: count = 0
        case .deallocate(let offset, let byteCount):
            count = 0
            let end = min(Int(offset) + Int(byteCount), work.target.bytes.count)
            for index in Int(offset)..<max(end, Int(offset)) { work.target.bytes[index] = 0 }
        // Without holes.
        case .findData(let offset): count = Int(offset)
        case .findHole: count = work.target.bytes.count
        }
        work.handler.fileCompleted(work.file, token: work.token, result: .success(count))
    }
}
