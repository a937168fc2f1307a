// kubernetes_types.mjs DIRECTORY FILE...: writes DIRECTORY/manifests.ts, in which each Kubernetes object of the YAML files
// is a literal of its type from @kubernetes/client-node, so that `tsc --strict` finds unknown fields and wrong types.
// A file that is named after a "+" is a patch: all of its fields are optional. Run where `yaml` is installed.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";

const [directory, ...files] = process.argv.slice(2);
const { parseAllDocuments } = createRequire(`${directory}/`)("yaml");

const types = {
  "apps/v1 Deployment": "V1Deployment",
  "v1 Service": "V1Service",
  "v1 Secret": "V1Secret",
  "v1 ConfigMap": "V1ConfigMap",
  "policy/v1 PodDisruptionBudget": "V1PodDisruptionBudget",
  "autoscaling/v2 HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
  "networking.k8s.io/v1 Ingress": "V1Ingress",
};
// Of a resource definition that the cluster may have or not: the part of it that is used here.
const monitor = `interface ServiceMonitor {
  apiVersion: "monitoring.coreos.com/v1"; kind: "ServiceMonitor"; metadata: k8s.V1ObjectMeta;
  spec: { selector: k8s.V1LabelSelector; endpoints: { port: string; path: string; interval: string;
    authorization: { credentials: k8s.V1SecretKeySelector } }[] };
}`;

let out = `import * as k8s from "@kubernetes/client-node";
type Partly<T> = T extends Date ? T : T extends (infer U)[] ? Partly<U>[] : T extends object ? { [K in keyof T]?: Partly<T[K]> } : T;
${monitor}
`;
let count = 0;
for (const name of files) {
  const patch = name.startsWith("+");
  for (const document of parseAllDocuments(readFileSync(patch ? name.slice(1) : name, "utf8"))) {
    if (document.errors.length) throw new Error(`${name}: ${document.errors[0].message}`);
    const object = document.toJS();
    if (object === null || object.kind === "Kustomization") continue;
    const kind = `${object.apiVersion} ${object.kind}`;
    const type = kind === "monitoring.coreos.com/v1 ServiceMonitor" ? "ServiceMonitor" : types[kind] && `k8s.${types[kind]}`;
    if (!type) throw new Error(`${name}: there is no type for ${kind}`);
    out += `// ${name}\nexport const object${count++}: ${patch ? `Partly<${type}>` : type} = ${JSON.stringify(object, null, 2)};\n`;
  }
}
writeFileSync(`${directory}/manifests.ts`, out);
console.log(`${count} objects`);
