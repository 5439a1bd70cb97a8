import ArgumentParser
import Foundation
import MPIO

/// What the command's exit status says (sysexits.h where that has a word for it).
enum ExitStatus {
    static let failed = ExitCode(1)
    static let usage = ExitCode(64)
    static let badPolicyFile = ExitCode(65)
    static let noPath = ExitCode(69)
    /// 128 + SIGINT, as shells have it.
    static let interrupted = ExitCode(130)

    static func of(_ error: any Error) -> ExitCode {
        switch error {
        case let code as ExitCode: code
        case is InvalidConfiguration, is ConfigurationFileError, PathManagerError.sameUnit: badPolicyFile
        case let failure as CommandFailure: failure.status
        case is CancellationError, DiskError.cancelled, PathManagerError.cancelled: interrupted
        case DiskError.noPathsAvailable, PathManagerError.noUsablePath: noPath
        case PathManagerError.unknownLUN: usage
        default: failed
        }
    }

    /// Says what went wrong on standard error and ends the process with its status.
    static func exit(after error: any Error) -> Never {
        switch error {
        case is ExitCode, is OutputClosed: break
        case let invalid as InvalidConfiguration: StandardError.write(report(invalid))
        case is CancellationError, DiskError.cancelled, PathManagerError.cancelled: StandardError.write("mpio: interrupted\n")
        case is CommandFailure, is ConfigurationFileError, is ControlSocketError, is ISIDLeaseError, is PathManagerError, is DiskError, is CopyMismatch, is BadRecording:
            StandardError.write("mpio: \(error)\n")
        case let error as POSIXError: StandardError.write("mpio: \(String(cString: strerror(error.code.rawValue)))\n")
        case let error as CocoaError: StandardError.write("mpio: \(error.localizedDescription)\n")
        default:
            // Usage errors, --help and --version are the parser's, in its words and with its status.
            if isParserError(error) { MPIOCommand.exit(withError: error) }
            StandardError.write("mpio: \(error)\n")
        }
        Foundation.exit(of(error).rawValue)
    }

    private static func isParserError(_ error: any Error) -> Bool {
        MPIOCommand.exitCode(for: error) != .failure || error is ValidationError || error is CleanExit
    }

    static func report(_ invalid: InvalidConfiguration) -> String {
        let count = invalid.errors.count
        return invalid.description + "\n" + (count == 1 ? "1 error\n" : "\(count) errors\n")
    }
}

/// The work could not be done, in words for the user.
struct CommandFailure: Error, CustomStringConvertible {
    var description: String
    var status = ExitStatus.failed

    init(_ description: String, status: ExitCode = ExitStatus.failed) {
        self.description = description
        self.status = status
    }
}
