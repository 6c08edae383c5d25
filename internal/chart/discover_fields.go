package chart

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// knownField is a field of a custom resource that is known to name an image.
type knownField struct {
	group string
	// kinds are separated by spaces.
	kinds string
	// paths are separated by spaces; "[]" stands for all items of a list, "*" for all keys.
	paths string
	// tags and digests are the fields beside it that complete it, the one that wins first.
	tags, digests []string
}

// knownFields is the table of docs/image-discovery.md. Fields that are containers of a pod are
// not in it, they are found by their place; neither are fields called "image" that hold parts.
var knownFields = []knownField{
	// Monitoring.
	{group: "monitoring.coreos.com", kinds: "Prometheus PrometheusAgent Alertmanager ThanosRuler", paths: "spec.image spec.baseImage spec.thanos.image spec.thanos.baseImage", tags: []string{"tag", "version"}, digests: []string{"sha"}},
	{group: "integreatly.org", kinds: "Grafana", paths: "spec.baseImage spec.initImage"},
	{group: "opentelemetry.io", kinds: "OpenTelemetryCollector OpAMPBridge TargetAllocator", paths: "spec.image spec.targetAllocator.image"},
	{group: "opentelemetry.io", kinds: "Instrumentation", paths: "spec.java.image spec.nodejs.image spec.python.image spec.dotnet.image spec.go.image spec.apacheHttpd.image spec.nginx.image"},
	{group: "jaegertracing.io", kinds: "Jaeger", paths: "spec.allInOne.image spec.collector.image spec.query.image spec.agent.image spec.ingester.image spec.storage.dependencies.image spec.storage.esIndexCleaner.image spec.storage.esRollover.image spec.storage.cassandraCreateSchema.image"},
	{group: "tempo.grafana.com", kinds: "TempoStack TempoMonolithic", paths: "spec.images.*"},
	{group: "fluentbit.fluent.io", kinds: "FluentBit Collector", paths: "spec.image"},
	{group: "fluentd.fluent.io", kinds: "Fluentd", paths: "spec.image"},
	{group: "operator.m3db.io", kinds: "M3DBCluster", paths: "spec.image"},

	// Search and messages.
	{group: "elasticsearch.k8s.elastic.co", kinds: "Elasticsearch", paths: "spec.image"},
	{group: "kibana.k8s.elastic.co", kinds: "Kibana", paths: "spec.image"},
	{group: "apm.k8s.elastic.co", kinds: "ApmServer", paths: "spec.image"},
	{group: "beat.k8s.elastic.co", kinds: "Beat", paths: "spec.image"},
	{group: "agent.k8s.elastic.co", kinds: "Agent", paths: "spec.image"},
	{group: "logstash.k8s.elastic.co", kinds: "Logstash", paths: "spec.image"},
	{group: "maps.k8s.elastic.co", kinds: "ElasticMapsServer", paths: "spec.image"},
	{group: "enterprisesearch.k8s.elastic.co", kinds: "EnterpriseSearch", paths: "spec.image"},
	{group: "opensearch.opster.io", kinds: "OpenSearchCluster", paths: "spec.general.image spec.dashboards.image spec.initHelper.image"},
	{group: "kafka.strimzi.io", kinds: "Kafka", paths: "spec.kafka.image spec.zookeeper.image spec.entityOperator.topicOperator.image spec.entityOperator.userOperator.image spec.entityOperator.tlsSidecar.image spec.kafkaExporter.image spec.cruiseControl.image spec.cruiseControl.tlsSidecar.image spec.jmxTrans.image"},
	{group: "kafka.strimzi.io", kinds: "KafkaConnect KafkaMirrorMaker KafkaMirrorMaker2 KafkaBridge", paths: "spec.image"},
	{group: "kafka.banzaicloud.io", kinds: "KafkaCluster", paths: "spec.clusterImage spec.cruiseControlConfig.image spec.monitoringConfig.jmxImage"},
	{group: "platform.confluent.io", kinds: "Kafka Zookeeper KRaftController SchemaRegistry Connect KsqlDB ControlCenter KafkaRestProxy", paths: "spec.image.application spec.image.init"},
	{group: "rabbitmq.com", kinds: "RabbitmqCluster", paths: "spec.image"},
	{group: "pulsar.streamnative.io", kinds: "PulsarBroker PulsarProxy", paths: "spec.image"},

	// Databases.
	{group: "postgresql.cnpg.io", kinds: "Cluster", paths: "spec.imageName"},
	{group: "postgresql.cnpg.io", kinds: "ImageCatalog ClusterImageCatalog", paths: "spec.images[].image"},
	{group: "acid.zalan.do", kinds: "postgresql", paths: "spec.dockerImage spec.sidecars[].image spec.connectionPooler.dockerImage"},
	{group: "acid.zalan.do", kinds: "OperatorConfiguration", paths: "configuration.docker_image configuration.sidecars[].image configuration.connection_pooler.connection_pooler_image configuration.logical_backup.logical_backup_docker_image configuration.scalyr.scalyr_image"},
	{group: "postgres-operator.crunchydata.com", kinds: "PostgresCluster PGAdmin PGUpgrade", paths: "spec.image spec.backups.pgbackrest.image spec.proxy.pgBouncer.image spec.monitoring.pgmonitor.exporter.image spec.userInterface.pgAdmin.image"},
	{group: "pxc.percona.com", kinds: "PerconaXtraDBCluster", paths: "spec.initContainer.image spec.pxc.image spec.haproxy.image spec.proxysql.image spec.backup.image spec.pmm.image spec.logcollector.image"},
	{group: "psmdb.percona.com", kinds: "PerconaServerMongoDB", paths: "spec.image spec.initImage spec.backup.image spec.pmm.image"},
	{group: "pgv2.percona.com", kinds: "PerconaPGCluster", paths: "spec.image spec.backups.pgbackrest.image spec.proxy.pgBouncer.image spec.pmm.image"},
	{group: "ps.percona.com", kinds: "PerconaServerMySQL", paths: "spec.mysql.image spec.proxy.haproxy.image spec.proxy.router.image spec.orchestrator.image spec.backup.image spec.pmm.image spec.toolkit.image"},
	{group: "mysql.presslabs.org", kinds: "MysqlCluster", paths: "spec.image"},
	{group: "k8s.mariadb.com", kinds: "MariaDB MaxScale", paths: "spec.image spec.metrics.exporter.image spec.galera.agent.image spec.galera.initContainer.image"},
	{group: "databases.spotahome.com", kinds: "RedisFailover", paths: "spec.redis.image spec.sentinel.image spec.redis.exporter.image spec.sentinel.exporter.image"},
	{group: "redis.redis.opstreelabs.in", kinds: "Redis RedisCluster RedisReplication RedisSentinel", paths: "spec.kubernetesConfig.image spec.redisExporter.image spec.initContainer.image"},
	{group: "dragonflydb.io", kinds: "Dragonfly", paths: "spec.image"},
	{group: "cassandra.datastax.com", kinds: "CassandraDatacenter", paths: "spec.serverImage spec.configBuilderImage spec.systemLoggerImage"},
	{group: "crdb.cockroachlabs.com", kinds: "CrdbCluster", paths: "spec.image.name"},
	{group: "couchbase.com", kinds: "CouchbaseCluster", paths: "spec.image spec.backup.image spec.monitoring.prometheus.image"},
	{group: "database.arangodb.com", kinds: "ArangoDeployment", paths: "spec.image"},
	{group: "asdb.aerospike.com", kinds: "AerospikeCluster", paths: "spec.image"},
	{group: "planetscale.com", kinds: "VitessCluster", paths: "spec.images.* spec.images.mysqld.*"},
	{group: "druid.apache.org", kinds: "Druid", paths: "spec.image"},
	{group: "infinispan.org", kinds: "Infinispan", paths: "spec.image"},

	// Storage and backup.
	{group: "ceph.rook.io", kinds: "CephCluster", paths: "spec.cephVersion.image"},
	{group: "minio.min.io", kinds: "Tenant", paths: "spec.image spec.kes.image spec.log.image spec.prometheus.image"},
	{group: "longhorn.io", kinds: "EngineImage BackingImageManager ShareManager InstanceManager", paths: "spec.image"},
	{group: "oadp.openshift.io", kinds: "DataProtectionApplication", paths: "spec.configuration.velero.customPlugins[].image"},

	// Deploying and building.
	{group: "argoproj.io", kinds: "ArgoCD", paths: "spec.image spec.applicationSet.image spec.dex.image spec.redis.image spec.repo.image spec.grafana.image spec.notifications.image spec.sso.image", tags: []string{"version"}},
	{group: "argoproj.io", kinds: "ArgoCD", paths: "spec.ha.redisProxyImage", tags: []string{"redisProxyVersion"}},
	{group: "argoproj.io", kinds: "Workflow WorkflowTemplate ClusterWorkflowTemplate", paths: "spec.templates[].container.image spec.templates[].script.image spec.templates[].sidecars[].image spec.templateDefaults.container.image spec.templateDefaults.script.image"},
	{group: "argoproj.io", kinds: "CronWorkflow", paths: "spec.workflowSpec.templates[].container.image spec.workflowSpec.templates[].script.image spec.workflowSpec.templates[].sidecars[].image"},
	{group: "tekton.dev", kinds: "Task ClusterTask StepAction", paths: "spec.image spec.steps[].image spec.sidecars[].image spec.stepTemplate.image"},
	{group: "tekton.dev", kinds: "TaskRun", paths: "spec.taskSpec.steps[].image spec.taskSpec.sidecars[].image spec.taskSpec.stepTemplate.image"},
	{group: "tekton.dev", kinds: "Pipeline", paths: "spec.tasks[].taskSpec.steps[].image spec.tasks[].taskSpec.sidecars[].image spec.finally[].taskSpec.steps[].image"},
	{group: "tekton.dev", kinds: "PipelineRun", paths: "spec.pipelineSpec.tasks[].taskSpec.steps[].image spec.pipelineSpec.tasks[].taskSpec.sidecars[].image"},
	{group: "apps.gitlab.com", kinds: "Runner", paths: "spec.runnerImage spec.helperImage spec.buildImage"},
	{group: "actions.summerwind.dev", kinds: "Runner", paths: "spec.image"},
	{group: "actions.summerwind.dev", kinds: "RunnerDeployment", paths: "spec.template.spec.image"},
	{group: "pkg.crossplane.io", kinds: "Provider Configuration Function", paths: "spec.package"},
	{group: "operators.coreos.com", kinds: "CatalogSource", paths: "spec.image"},
	{group: "operators.coreos.com", kinds: "ClusterServiceVersion", paths: "spec.relatedImages[].image"},
	{group: "helm.cattle.io", kinds: "HelmChart", paths: "spec.jobImage"},
	{group: "openfaas.com", kinds: "Function", paths: "spec.image"},
	{group: "fission.io", kinds: "Environment", paths: "spec.runtime.image spec.builder.image"},
	{group: "operator.knative.dev", kinds: "KnativeServing KnativeEventing", paths: "spec.registry.override.*"},
	{group: "camel.apache.org", kinds: "Integration", paths: "spec.traits.container.image"},
	{group: "camel.apache.org", kinds: "IntegrationKit", paths: "spec.image"},

	// Virtual machines, gateways, identity.
	{group: "kubevirt.io", kinds: "VirtualMachine VirtualMachineInstanceReplicaSet", paths: "spec.template.spec.volumes[].containerDisk.image spec.template.spec.domain.firmware.kernelBoot.container.image"},
	{group: "kubevirt.io", kinds: "VirtualMachineInstance", paths: "spec.volumes[].containerDisk.image spec.domain.firmware.kernelBoot.container.image"},
	{group: "pool.kubevirt.io", kinds: "VirtualMachinePool", paths: "spec.virtualMachineTemplate.spec.template.spec.volumes[].containerDisk.image"},
	{group: "gateway.envoyproxy.io", kinds: "EnvoyProxy", paths: "spec.provider.kubernetes.envoyDeployment.container.image spec.provider.kubernetes.envoyDaemonSet.container.image"},
	{group: "k8s.keycloak.org", kinds: "Keycloak", paths: "spec.image"},
	{group: "vault.banzaicloud.com", kinds: "Vault", paths: "spec.image spec.bankVaultsImage spec.statsdImage spec.fluentdImage"},

	// Computing and machine learning.
	{group: "sparkoperator.k8s.io", kinds: "SparkApplication", paths: "spec.image spec.driver.image spec.executor.image"},
	{group: "sparkoperator.k8s.io", kinds: "ScheduledSparkApplication", paths: "spec.template.image spec.template.driver.image spec.template.executor.image"},
	{group: "flink.apache.org", kinds: "FlinkDeployment", paths: "spec.image"},
	{group: "serving.kserve.io", kinds: "InferenceService", paths: "spec.predictor.*.image"},
}

// findFields returns the scalars of an object that knownFields speak of.
func findFields(group, kind string, object *yaml.Node) map[*yaml.Node]*knownField {
	found := map[*yaml.Node]*knownField{}
	for i := range knownFields {
		rule := &knownFields[i]
		if rule.group != group || !containsField(rule.kinds, kind) {
			continue
		}
		for path := range strings.FieldsSeq(rule.paths) {
			selectNodes(object, strings.Split(path, "."), func(n *yaml.Node) {
				if isText(n) {
					found[n] = rule
				}
			})
		}
	}
	return found
}

func containsField(list, want string) bool {
	for s := range strings.FieldsSeq(list) {
		if s == want {
			return true
		}
	}
	return false
}

// selectNodes calls f for all nodes at a path; n is not nil.
func selectNodes(n *yaml.Node, path []string, f func(*yaml.Node)) {
	if len(path) == 0 {
		f(n)
		return
	}
	key, list := strings.CutSuffix(path[0], "[]")
	if key == "*" {
		if n.Kind == yaml.MappingNode {
			for i := 1; i < len(n.Content); i += 2 {
				selectNodes(n.Content[i], path[1:], f)
			}
		}
		return
	}
	if n = field(n, key); n == nil {
		return
	}
	if !list {
		selectNodes(n, path[1:], f)
		return
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			selectNodes(item, path[1:], f)
		}
	}
}
