import ArgumentParser
import Foundation
import MPIO

/// How `discover` proves itself, and what it asks of the target.
struct CHAPOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The CHAP user to log in as.", valueName: "name"))
    var user: String?

    @Option(help: ArgumentHelp("The file with its secret: one line, readable by you alone.", valueName: "file"), completion: .file())
    var secretFile: String?

    @Option(help: ArgumentHelp("The user by which the target has to prove itself.", valueName: "name"))
    var mutualUser: String?

    @Option(help: ArgumentHelp("The file with the target's secret.", valueName: "file"), completion: .file())
    var mutualSecretFile: String?

    func validate() throws {
        guard (user == nil) == (secretFile == nil) else { throw ValidationError("--user and --secret-file go together.") }
        guard (mutualUser == nil) == (mutualSecretFile == nil) else {
            throw ValidationError("--mutual-user and --mutual-secret-file go together.")
        }
        guard mutualUser == nil || user != nil else { throw ValidationError("--mutual-user needs --user: the target proves itself to a user.") }
    }

    /// Nil where no user was given.
    func credentials() throws -> CHAPConfiguration? {
        guard let user, let secretFile else { return nil }
        var mutual: CHAPConfiguration.Mutual?
        if let mutualUser, let mutualSecretFile {
            mutual = .init(user: mutualUser, secret: try readSecret(mutualSecretFile))
        }
        return CHAPConfiguration(user: user, secret: try readSecret(secretFile), mutual: mutual)
    }

    /// As the policy file is to say it; files by their full names, since the policy file may be moved.
    var written: DiscoveredStorage.CHAP? {
        guard let user, let secretFile else { return nil }
        return DiscoveredStorage.CHAP(
            user: user, secretFile: absolute(secretFile), mutualUser: mutualUser, mutualSecretFile: mutualSecretFile.map(absolute))
    }

    private func absolute(_ path: String) -> String { URL(fileURLWithPath: path).standardizedFileURL.path }
}

/// A secret that the command line named.
func readSecret(_ path: String) throws -> Secret {
    do {
        return try Secret(contentsOfFile: path)
    } catch {
        throw CommandFailure("\(error)", status: ExitStatus.usage)
    }
}
