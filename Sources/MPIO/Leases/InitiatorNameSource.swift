import Foundation

/// Where the initiator's name comes from when the policy file gives none.
public enum InitiatorNameSource {
    /// The name in `/etc/iscsi/initiatorname.iscsi`, which open-iscsi uses as well; else one made of the machine's id
    /// (hashed, as machine-id(5) asks) or, without one, its host name. Nil where the machine has none of these.
    public static func defaultName(
        initiatorNameFile: String = "/etc/iscsi/initiatorname.iscsi", machineIDFile: String = "/etc/machine-id",
        hostName: String? = nil
    ) -> String? {
        if let text = try? String(contentsOfFile: initiatorNameFile, encoding: .utf8) {
            for line in text.split(whereSeparator: \.isNewline) {
                let parts = line.split(separator: "=", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
                guard parts.count == 2, parts[0] == "InitiatorName", ISCSINameProblem.find(in: parts[1]) == nil else { continue }
                return parts[1]
            }
        }
        let machine = (try? String(contentsOfFile: machineIDFile, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
        if let machine, machine.count >= 32 { return name("machine " + machine) }
        let host = hostName ?? ProcessInfo.processInfo.hostName
        return host.isEmpty || host == "localhost" ? nil : name("host " + host)
    }

    private static func name(_ seed: String) -> String {
        let digits = String(StableHash.of("mpio initiator " + seed), radix: 16)
        return "iqn.2026-11.io.mpio:" + String(repeating: "0", count: 16 - digits.count) + digits
    }
}
